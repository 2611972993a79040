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
constexpr const char* kFormat = "evergrad checkpoint 1";
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
  std::string file;  // name of the safetensors file, in the same folder
  json state;
  std::uint64_t bytes = 0;
  std::string checksum;
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
    check(document.at("format") == kFormat, Kind::format, [&] { return cat(where, " has an unknown format"); });
    Header header;
    header.step = document.at("step").get<std::int64_t>();
    header.file = document.at("file").get<std::string>();
    header.bytes = document.at("bytes").get<std::uint64_t>();
    header.checksum = document.at("checksum").get<std::string>();
    header.state = std::move(document.at("state"));
    check(fs::path(header.file).filename() == header.file, Kind::format,
          [&] { return cat(where, " names a file outside its folder"); });
    return header;
  } catch (const json::exception& e) { fail(Kind::format, cat(where, " is damaged: ", e.what())); }
}

Checkpoint read_checkpoint(const fs::path& path) {
  Header header = read_header(path);
  const fs::path file = path.parent_path() / header.file;
  std::error_code error;
  const std::uint64_t size = fs::file_size(file, error);
  check(!error, Kind::io, [&] { return io_message("read", file, error.value()); });
  check(size == header.bytes, Kind::format,
        [&] { return cat(file.string(), " is damaged: it has ", size, " bytes, ", header.bytes, " were written"); });
  check(checksum_of_file(file) == header.checksum, Kind::format,
        [&] { return cat(file.string(), " is damaged: its checksum is wrong"); });
  return {header.step, std::move(header.state), SafetensorsFile::open(file)};
}

/// A name for the tensors of `step` that no existing file has: a step saved twice must not break the first save.
std::string free_name(const fs::path& folder, std::int64_t step) {
  for (int copy = 0;; ++copy) {
    const std::string name = cat("step-", step, copy ? cat('.', copy) : "", ".safetensors");
    if (!fs::exists(folder / name)) return name;
  }
}

/// Removes all but the newest kKept, and tensors that belong to no checkpoint. A failure here loses nothing.
void remove_old(const fs::path& folder) {
  std::set<std::string> used;
  const std::vector<Listed> all = list(folder);
  std::error_code ignored;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i >= kKept) {
      fs::remove(all[i].path, ignored);
      continue;
    }
    try {
      used.insert(read_header(all[i].path).file);
    } catch (const Error&) {  // a damaged JSON: keep what it most likely names, for whoever looks into it
      used.insert(cat("step-", all[i].step, ".safetensors"));
    }
  }
  std::vector<fs::path> unused;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.rfind("step-", 0) == 0 && entry.path().extension() == ".safetensors";
    if (ours && !used.count(name)) unused.push_back(entry.path());
  }
  for (const fs::path& path : unused) fs::remove(path, ignored);
}

}  // namespace

void Checkpoint::restore(std::span<const NamedTensor> into) const {
  std::set<std::string_view> wanted;
  std::vector<const SafetensorsEntry*> entries;
  for (const NamedTensor& item : into) {
    check(wanted.insert(item.name).second, Kind::internal,
          [&] { return cat("the tensor ", item.name, " is asked for twice"); });
    const SafetensorsEntry* entry = tensors.find(item.name);
    check(entry != nullptr, Kind::format, [&] {
      return cat("the checkpoint ", tensors.source(), " lacks the tensor ", item.name,
                 "; it belongs to another model or configuration");
    });
    tensors.check_fits(*entry, item.tensor);
    entries.push_back(entry);
  }
  for (const SafetensorsEntry& e : tensors.entries())
    check(wanted.count(e.name) == 1, Kind::format, [&] {
      return cat("the checkpoint ", tensors.source(), " holds the tensor ", e.name,
                 ", which this model does not have; it belongs to another model or configuration");
    });
  for (std::size_t i = 0; i < entries.size(); ++i) tensors.load_into(*entries[i], into[i].tensor);
}

Checkpoints::Checkpoints(fs::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  fs::create_directories(folder_, error);
  check(!error, Kind::io, [&] { return io_message("create the folder", folder_, error.value()); });
  remove_temporaries(folder_);
}

Checkpoints Checkpoints::read_only(fs::path folder) {
  Checkpoints c;
  c.folder_ = std::move(folder);
  return c;
}

void Checkpoints::save(std::int64_t step, std::span<const NamedTensor> tensors, const json& state) {
  check(step >= 0, Kind::usage, [&] { return cat("a checkpoint cannot have the negative step ", step); });
  const std::string name = free_name(folder_, step);
  const SafetensorsWritten written =
      write_safetensors(folder_ / name, tensors, {{"format", kFormat}, {"step", std::to_string(step)}});
  json document = {{"format", kFormat},
                   {"step", step},
                   {"file", name},
                   {"bytes", written.bytes},
                   {"checksum", checksum_text(written.checksum)},
                   {"state", state}};
  try {
    // Through text once, because NaN turns into null there and the checksum must be that of what is read back.
    document = json::parse(document.dump());
    document["own_checksum"] = checksum_of_text(document.dump());
    write_file(folder_ / cat("step-", step, ".json"), document.dump(1) + '\n');
  } catch (...) {
    std::error_code ignored;
    fs::remove(folder_ / name, ignored);
    throw;
  }
  remove_old(folder_);
}

std::optional<Checkpoint> Checkpoints::load_latest(std::vector<std::string>* notes) const {
  const std::vector<Listed> all = list(folder_);
  for (std::size_t i = 0; i < all.size(); ++i) {
    try {
      return read_checkpoint(all[i].path);
    } catch (const Error& e) {
      if (notes)
        notes->push_back(cat("The checkpoint of step ", all[i].step, " cannot be used: ", e.what(), ". ",
                             i + 1 < all.size()
                                 ? cat("Falling back to the one of step ", all[i + 1].step, ".")
                                 : std::string("There is no earlier one: the run starts from its beginning.")));
    }
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
  check(path.extension() != ".safetensors" || fs::path(found.tensors.source()).filename() == path.filename(),
        Kind::format, [&] { return cat(path.string(), " is not the file that ", json_path.string(), " names"); });
  return found;
}

}  // namespace eg
