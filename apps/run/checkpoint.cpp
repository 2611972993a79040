// apps/run/checkpoint.cpp - atomic checkpoints with checksums and fallback.
#include "apps/run/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
constexpr const char *kFormat = "evergrad checkpoint 1", *kFormatOfRanks = "evergrad checkpoint 2";
constexpr std::size_t kKept = 2;

/// The step in "step-<N>.json"; nothing for other names.
std::optional<std::int64_t> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (path.extension() != ".json" || name.rfind("step-", 0) != 0) return std::nullopt;
  const char* const end = name.data() + name.size() - 5;
  std::int64_t step = 0;
  const auto parsed = std::from_chars(name.data() + 5, end, step);
  return parsed.ec == std::errc() && parsed.ptr == end && step >= 0 ? std::optional(step) : std::nullopt;
}

struct Listed {
  std::int64_t step;
  fs::path path;
};
/// The JSON files of a checkpoints folder, newest first.
std::vector<Listed> list(const fs::path& folder) {
  std::vector<Listed> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (const auto step = step_of(entry.path())) found.push_back({*step, entry.path()});
  check(!error, Kind::io, [&] { return io_message("read the folder", folder, error.value()); });
  std::sort(found.begin(), found.end(), [](const Listed& a, const Listed& b) { return a.step > b.step; });
  return found;
}

std::string checksum_of_text(const std::string& text) {
  return checksum_text(checksum_of(std::as_bytes(std::span(text.data(), text.size()))));
}

std::string checksum_of_file(const fs::path& path) {
  const FileHandle file = open_for_reading(path);
  const std::uint64_t size = fs::file_size(path);
  std::vector<std::byte> block(std::size_t(1) << 20);
  Checksum sum;
  for (std::uint64_t at = 0; at < size; at += block.size()) {
    const auto piece = std::span(block).first(std::size_t(std::min<std::uint64_t>(block.size(), size - at)));
    read_at(file.get(), at, piece, path);
    sum.update(piece);
  }
  return checksum_text(sum.value());
}

struct Header {
  std::int64_t step = 0;
  json files, divided;  // as publish() writes them
  json state;
};

/// Reads and verifies the JSON alone. Throws Error{format} or Error{io}.
Header read_header(const fs::path& path) {
  const std::string text = read_file(path, std::uint64_t(256) << 20);
  const std::string where = path.string();
  try {
    json document = json::parse(text);
    const std::string own = document.at("own_checksum").get<std::string>();
    document.erase("own_checksum");
    check(checksum_of_text(document.dump()) == own, Kind::format,
          [&] { return cat(where, " is damaged: its checksum is wrong"); });
    const bool several = document.at("format") == kFormatOfRanks;
    check(several || document.at("format") == kFormat, Kind::format,
          [&] { return cat(where, " has an unknown format"); });
    Header header;
    header.step = document.at("step").get<std::int64_t>();
    header.files = several ? document.at("files") : json::array({document});
    if (several) header.divided = document.at("divided");
    header.state = std::move(document.at("state"));
    check(!header.files.empty(), Kind::format, [&] { return cat(where, " names no file"); });
    for (const json& file : header.files) {
      const fs::path name = file.at("file").get<std::string>();
      check(name.filename() == name, Kind::format, [&] { return cat(where, " names a file outside its folder"); });
    }
    return header;
  } catch (const json::exception& e) { fail(Kind::format, cat(where, " is damaged: ", e.what())); }
}

/// Throws when it is not what was written; its contents are looked at where `through` says so.
void check_file(const fs::path& file, std::uint64_t bytes, const std::string& checksum, bool through) {
  std::error_code error;
  const std::uint64_t size = fs::file_size(file, error);
  check(!error, Kind::io, [&] { return io_message("read", file, error.value()); });
  check(size == bytes, Kind::format,
        [&] { return cat(file.string(), " is damaged: it has ", size, " bytes, ", bytes, " were written"); });
  check(!through || checksum_of_file(file) == checksum, Kind::format,
        [&] { return cat(file.string(), " is damaged: its checksum is wrong"); });
}

Checkpoint read_checkpoint(const fs::path& path, int part = 0, int parts = 1) {
  Header header = read_header(path);
  try {
    std::vector<CheckpointFile> files;
    for (std::size_t i = 0; i < header.files.size(); ++i) {
      const json& f = header.files[i];
      const fs::path file = path.parent_path() / f.at("file").get<std::string>();
      check_file(file, f.at("bytes").get<std::uint64_t>(), f.at("checksum").get<std::string>(),
                 int(i % std::size_t(parts)) == part);
      CheckpointFile opened{SafetensorsFile::open(file), {}};
      const json held = f.value("pieces", json::object());
      for (const auto& [name, pieces] : held.items())
        for (const json& piece : pieces)
          opened.pieces[name].push_back({piece.at(0).get<std::int64_t>(), piece.at(1).get<std::int64_t>()});
      files.push_back(std::move(opened));
    }
    std::map<std::string, Shape> divided;
    for (const auto& [name, shape] : header.divided.items()) {
      Shape& whole = divided[name];
      for (const json& extent : shape) whole.push_back(extent.get<std::int64_t>());
    }
    return {header.step, std::move(header.state), CheckpointTensors(std::move(files), divided)};
  } catch (const json::exception& e) { fail(Kind::format, cat(path.string(), " is damaged: ", e.what())); }
}

/// Removes all but the newest kKept, and tensors that belong to no checkpoint. A failure here loses nothing.
void remove_old(const fs::path& folder) {
  std::set<std::string> used, unsure;  // names; beginnings of names
  const std::vector<Listed> all = list(folder);
  std::error_code ignored;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i >= kKept) {
      fs::remove(all[i].path, ignored);
      continue;
    }
    try {
      for (const json& file : read_header(all[i].path).files) used.insert(file.at("file").get<std::string>());
    } catch (const Error&) {  // a damaged JSON: keep what it most likely names, for whoever looks into it
      unsure.insert(cat("step-", all[i].step, "."));
    }
  }
  std::vector<fs::path> unused;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.rfind("step-", 0) == 0 && entry.path().extension() == ".safetensors";
    if (ours && !used.count(name) && !unsure.count(name.substr(0, name.find('.') + 1))) unused.push_back(entry.path());
  }
  for (const fs::path& path : unused) fs::remove(path, ignored);
}

}  // namespace

void Checkpoint::restore(std::span<const StateTensor> into) const {
  std::set<std::string_view> wanted;
  std::vector<const SafetensorsEntry*> entries;
  for (const StateTensor& item : into) {
    check(wanted.insert(item.name).second, Kind::internal,
          [&] { return cat("the tensor ", item.name, " is asked for twice"); });
    const SafetensorsEntry* entry = tensors.find(item.name);
    check(entry != nullptr, Kind::format, [&] {
      return cat("the checkpoint ", tensors.source(), " lacks the tensor ", item.name,
                 "; it belongs to another model or configuration");
    });
    tensors.check_fits(*entry, item);
    entries.push_back(entry);
  }
  for (const SafetensorsEntry& e : tensors.entries())
    check(wanted.count(e.name) == 1, Kind::format, [&] {
      return cat("the checkpoint ", tensors.source(), " holds the tensor ", e.name,
                 ", which this model does not have; it belongs to another model or configuration");
    });
  for (std::size_t i = 0; i < entries.size(); ++i) tensors.load_into(*entries[i], into[i]);
}

Checkpoints::Checkpoints(fs::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  fs::create_directories(folder_, error);
  check(!error, Kind::io, [&] { return io_message("create the folder", folder_, error.value()); });
  remove_temporaries(folder_);
  remove_old(folder_);  // parts that ranks wrote and nobody published
}

Checkpoints Checkpoints::of_another_rank(fs::path folder) {
  Checkpoints c;
  c.folder_ = std::move(folder);
  return c;
}

std::string Checkpoints::new_name(std::int64_t step) const {
  check(step >= 0, Kind::usage, [&] { return cat("a checkpoint cannot have the negative step ", step); });
  // One that no existing file has: a step saved twice must not break the first save.
  for (int copy = 0;; ++copy) {
    const std::string name = cat("step-", step, copy ? cat('.', copy) : "");
    if (!fs::exists(folder_ / (name + ".safetensors"))) return name;
  }
}

json Checkpoints::write_file_of_rank(const std::string& name, int rank, std::int64_t step,
                                     std::span<const StateTensor> tensors) const {
  std::vector<NamedTensor> written;
  json pieces = json::object(), divided = json::object();
  for (const StateTensor& t : tensors) {
    if (!t.part) {
      if (rank == 0) written.push_back(t);
      continue;
    }
    for (int i = 0; i < t.part->whole.rank(); ++i) divided[t.name].push_back(t.part->whole[i]);
    if (t.part->pieces.empty()) continue;
    for (const TensorPiece& p : t.part->pieces) pieces[t.name].push_back({p.begin, p.size});
    written.push_back({t.name, compact_on_host(t.tensor, *t.part)});
  }
  const std::string file = cat(name, rank ? cat(".rank-", rank) : "", ".safetensors");
  const SafetensorsWritten result =
      write_safetensors(folder_ / file, written,
                        {{"format", divided.empty() ? kFormat : kFormatOfRanks}, {"step", std::to_string(step)}});
  json said = {{"file", file}, {"bytes", result.bytes}, {"checksum", checksum_text(result.checksum)}};
  if (!divided.empty()) said["pieces"] = pieces, said["divided"] = divided;
  return said;
}

void Checkpoints::publish(std::int64_t step, const std::vector<json>& files, const json& state) {
  json document = {{"format", kFormat}, {"step", step}, {"state", state}};
  if (files[0].contains("divided")) {
    document["format"] = kFormatOfRanks, document["divided"] = files[0].at("divided"), document["files"] = files;
    for (json& file : document["files"]) file.erase("divided");
  } else {
    document.update(files[0]);
  }
  // Through text once, because NaN turns into null there and the checksum must be that of what is read back.
  document = json::parse(document.dump());
  document["own_checksum"] = checksum_of_text(document.dump());
  write_file(folder_ / cat("step-", step, ".json"), document.dump(files.size() > 1 ? -1 : 1) + '\n');
  remove_old(folder_);
}

void Checkpoints::save(std::int64_t step, std::span<const StateTensor> tensors, const json& state) {
  const json file = write_file_of_rank(new_name(step), 0, step, tensors);
  try {
    publish(step, {file}, state);
  } catch (...) {
    std::error_code ignored;
    fs::remove(folder_ / file.at("file").get<std::string>(), ignored);
    throw;
  }
}

std::string Checkpoints::listing() const {
  std::string names;
  for (const Listed& item : list(folder_)) names += cat(names.empty() ? "" : ", ", item.path.filename().string());
  return names.empty() ? "none" : names;
}

std::optional<Checkpoint> Checkpoints::load_latest(std::vector<std::string>* notes, const Sharing& sharing) const {
  const std::vector<Listed> all = list(folder_);
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::optional<Checkpoint> found;
    std::string damage;
    try {
      found = read_checkpoint(all[i].path, sharing.part, sharing.parts);
    } catch (const Error& e) { damage = e.what(); }
    if (sharing.first_damage) damage = sharing.first_damage(damage);
    if (damage.empty()) return found;
    if (notes)
      notes->push_back(cat("The checkpoint of step ", all[i].step, " cannot be used: ", damage, ". ",
                           i + 1 < all.size()
                               ? cat("Falling back to the one of step ", all[i + 1].step, ".")
                               : std::string("There is no earlier one: the run starts from its beginning.")));
  }
  return std::nullopt;
}

Checkpoint open_checkpoint(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    const fs::path inner = path / "checkpoints";
    const fs::path folder = fs::is_directory(inner, error) ? inner : path;
    std::string reason = "it holds no checkpoint";
    if (fs::is_directory(path / "runs", error))
      reason = cat("its runs lie in folders of their own; give one of ", (path / "runs").string(), "/*");
    for (const Listed& item : list(folder)) {
      try {
        return read_checkpoint(item.path);
      } catch (const Error& e) { reason = e.what(); }
    }
    fail(Kind::format, cat("no usable checkpoint in ", folder.string(), ": ", reason));
  }
  fs::path json_path = path;
  if (path.extension() == ".safetensors") {
    // "step-7.1.safetensors" belongs to "step-7.json", which must name it.
    std::string stem = path.stem().string();
    json_path = path.parent_path() / (stem.substr(0, stem.find('.')) + ".json");
    check(fs::exists(path, error), Kind::io, [&] { return io_message("read", path, ENOENT); });
  }
  Checkpoint found = read_checkpoint(json_path);
  check(path.extension() != ".safetensors" || found.tensors.has_file(path), Kind::format,
        [&] { return cat(path.string(), " is no file that ", json_path.string(), " names"); });
  return found;
}

}  // namespace eg
