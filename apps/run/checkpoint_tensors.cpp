// apps/run/checkpoint_tensors.cpp - see checkpoint_tensors.h.
#include "apps/run/checkpoint_tensors.h"

#include <algorithm>
#include <utility>

#include "engine/device.h"
#include "engine/error.h"

namespace eg {
namespace {

std::int64_t elements(std::span<const TensorPiece> pieces) {
  std::int64_t n = 0;
  for (const TensorPiece& p : pieces) n += p.size;
  return n;
}

std::byte* at(const Tensor& t, std::int64_t element) {
  return static_cast<std::byte*>(t.data()) + std::size_t(element) * size_of(t.dtype());
}

/// Throws unless the pieces of all files are every element once.
void check_complete(const std::string& source, const std::string& name, std::int64_t size,
                    std::vector<TensorPiece> pieces) {
  std::sort(pieces.begin(), pieces.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  std::int64_t next = 0;
  for (const TensorPiece& p : pieces) {
    check(p.begin == next && p.size > 0 && p.size <= size - next, Kind::format, [&] {
      return cat(source, ": of the divided tensor ", name, ", [", size, "], a piece of ", p.size, " begins at ",
                 p.begin, ", where ", next, " was expected");
    });
    next += p.size;
  }
  check(next == size, Kind::format,
        [&] { return cat(source, ": the divided tensor ", name, " has ", size, " elements, its files hold ", next); });
}

}  // namespace

CheckpointTensors::CheckpointTensors(std::vector<CheckpointFile> files, const std::map<std::string, Shape>& divided)
    : files_(std::move(files)) {
  std::map<std::string, std::vector<Source>> parts;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const CheckpointFile& f = files_[i];
    for (const auto& [name, pieces] : f.pieces)
      check(divided.contains(name) && f.file.find(name), Kind::format,
            [&] { return cat(f.file.source(), " should hold pieces of ", name, " and does not"); });
    for (const SafetensorsEntry& e : f.file.entries()) {
      const auto own = f.pieces.find(e.name);
      if (own == f.pieces.end()) {
        check(find(e.name) == nullptr && !divided.contains(e.name), Kind::format,
              [&] { return cat(f.file.source(), " holds the tensor ", e.name, ", which another file has too"); });
        entries_.push_back(e);
        sources_.push_back({{i, {{0, e.shape.size(), 0}}}});
        continue;
      }
      Source s{i, own->second};
      std::int64_t next = 0;
      const auto fits = [&](bool good) {
        check(good, Kind::format, [&] {
          return cat(f.file.source(), ": the tensor ", e.name, " [", e.shape.size(),
                     "] is not as long as the pieces that it should hold");
        });
      };
      for (TensorPiece& p : s.pieces) {
        fits(p.size > 0 && p.size <= e.shape.size() - next);
        p.own = next, next += p.size;
      }
      fits(next == e.shape.size());
      parts[e.name].push_back(std::move(s));
    }
  }
  for (const auto& [name, shape] : divided) {
    std::vector<TensorPiece> all;
    for (const Source& s : parts[name]) all.insert(all.end(), s.pieces.begin(), s.pieces.end());
    check_complete(source(), name, shape.size(), std::move(all));
    if (shape.size() == 0) continue;
    const SafetensorsEntry& like = *files_[parts[name][0].file].file.find(name);
    for (const Source& s : parts[name]) {
      const CheckpointFile& f = files_[s.file];
      check(f.file.find(name)->stored == like.stored, Kind::format,
            [&] { return cat(f.file.source(), ": the tensor ", name, " has another type than in other files"); });
    }
    SafetensorsEntry whole = like;
    whole.shape = shape, whole.begin = 0, whole.bytes = std::uint64_t(shape.size()) * size_of(like.dtype);
    entries_.push_back(std::move(whole));
    sources_.push_back(std::move(parts[name]));
  }
}

const SafetensorsEntry* CheckpointTensors::find(std::string_view name) const {
  for (const SafetensorsEntry& e : entries_)
    if (e.name == name) return &e;
  return nullptr;
}

const std::string& CheckpointTensors::source() const {
  static const std::string none = "a checkpoint without files";
  return files_.empty() ? none : files_[0].file.source();
}

bool CheckpointTensors::has_file(const std::filesystem::path& path) const {
  return std::any_of(files_.begin(), files_.end(), [&](const CheckpointFile& f) {
    return std::filesystem::path(f.file.source()).filename() == path.filename();
  });
}

const std::vector<CheckpointTensors::Source>& CheckpointTensors::sources_of(const SafetensorsEntry& entry) const {
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].name == entry.name) return sources_[i];
  fail(Kind::internal, cat(source(), " was asked for the tensor ", entry.name, ", which is not its own"));
}

void CheckpointTensors::check_fits(const SafetensorsEntry& e, const Tensor& t) const {
  files_[sources_of(e)[0].file].file.check_fits(e, t);
}

void CheckpointTensors::check_fits(const SafetensorsEntry& e, const StateTensor& kept) const {
  if (!kept.part) return check_fits(e, kept.tensor);
  // Of the type alone, since this rank has no tensor of that shape; and of the shape.
  SafetensorsEntry own = e;
  own.shape = kept.tensor.shape();
  check_fits(own, kept.tensor);
  check(e.shape == kept.part->whole, Kind::shape, [&] {
    return cat(source(), ": tensor ", e.name, " has shape ", e.shape, ", expected ", kept.part->whole,
               "; the file belongs to another model or configuration");
  });
}

void CheckpointTensors::load_pieces(const SafetensorsEntry& e, const Tensor& into,
                                    std::span<const TensorPiece> wanted) const {
  DeviceRuntime& device = runtime(into.device());
  for (const Source& s : sources_of(e)) {
    Tensor stored;  // on the host, in the type of `into`
    for (const TensorPiece& theirs : s.pieces)
      for (const TensorPiece& ours : wanted) {
        const TensorPiece from = theirs.within(ours.begin, ours.begin + ours.size);
        if (from.size == 0) continue;
        if (!stored) {
          const SafetensorsFile& file = files_[s.file].file;
          const SafetensorsEntry& held = *file.find(e.name);
          stored = Tensor::empty(held.shape, into.dtype(), kCpu);
          file.load_into(held, stored);
        }
        device.copy_from_host(at(into, ours.within(from.begin, from.begin + from.size).own), at(stored, from.own),
                              std::size_t(from.size) * size_of(into.dtype()), {});
      }
    device.synchronize({});  // `stored` dies here
  }
}

void CheckpointTensors::load_into(const SafetensorsEntry& e, const Tensor& t) const {
  check_fits(e, t);
  const std::vector<Source>& sources = sources_of(e);
  const SafetensorsFile& first = files_[sources[0].file].file;
  if (sources.size() == 1 && first.find(e.name)->shape == e.shape) return first.load_into(*first.find(e.name), t);
  const TensorPiece everything{0, e.shape.size(), 0};
  load_pieces(e, t, {&everything, 1});
}

void CheckpointTensors::load_into(const SafetensorsEntry& e, const StateTensor& kept) const {
  if (!kept.part) return load_into(e, kept.tensor);
  check_fits(e, kept);
  load_pieces(e, kept.tensor, kept.part->pieces);
}

Tensor CheckpointTensors::load(const SafetensorsEntry& e, Device device) const {
  Tensor t = Tensor::empty(e.shape, e.dtype, device);
  load_into(e, t);
  return t;
}

Tensor CheckpointTensors::load(std::string_view name, Device device) const {
  const SafetensorsEntry* const e = find(name);
  check(e != nullptr, Kind::format, [&] { return cat(source(), " holds no tensor ", name); });
  return load(*e, device);
}

Tensor compact_on_host(const Tensor& kept, const TensorPart& part) {
  Tensor out = Tensor::empty({elements(part.pieces)}, kept.dtype(), kCpu);
  std::int64_t next = 0;
  for (const TensorPiece& p : part.pieces) {
    runtime(kept.device())
        .copy_to_host(at(out, next), at(kept, p.own), std::size_t(p.size) * size_of(kept.dtype()), {});
    next += p.size;
  }
  runtime(kept.device()).synchronize({});
  return out;
}

}  // namespace eg
