// engine/safetensors.cpp - hardened reader and atomic writer of the safetensors format.
//
// The header is read by a streaming JSON parser into a small state machine that knows the three levels the format has,
// so that nesting, duplicate keys and unexpected values are refused where they occur and no document tree is built.
#include "engine/safetensors.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "engine/file.h"

namespace eg {
namespace {

struct StoredType {
  std::string_view name;
  std::uint64_t bytes;
  std::optional<DType> dtype;  // what it becomes here; absent: a valid type of the format that evergrad does not read
};
constexpr std::array<StoredType, 15> kStored{{{"F64", 8, DType::f64},
                                              {"F32", 4, DType::f32},
                                              {"F16", 2, DType::f32},
                                              {"BF16", 2, DType::bf16},
                                              {"I64", 8, DType::i32},
                                              {"I32", 4, DType::i32},
                                              {"U8", 1, DType::u8},
                                              {"I16", 2, std::nullopt},
                                              {"I8", 1, std::nullopt},
                                              {"U16", 2, std::nullopt},
                                              {"U32", 4, std::nullopt},
                                              {"U64", 8, std::nullopt},
                                              {"BOOL", 1, std::nullopt},
                                              {"F8_E4M3", 1, std::nullopt},
                                              {"F8_E5M2", 1, std::nullopt}}};

const char* stored_name(DType t) {
  switch (t) {
    case DType::f64: return "F64";
    case DType::f32: return "F32";
    case DType::bf16: return "BF16";
    case DType::i32: return "I32";
    case DType::u8: return "U8";
  }
  return "?";
}

/// A name from a file, as it may stand in a message: short and without control characters.
std::string shown(std::string_view name) {
  std::string text = "'";
  for (const char c : name.substr(0, 80)) text += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return text + (name.size() > 80 ? "...'" : "'");
}

/// Numbers from a file, as they may stand in a message.
std::string shown(const std::vector<std::uint64_t>& numbers) {
  std::string text = "[";
  for (std::size_t i = 0; i < std::min<std::size_t>(numbers.size(), 8); ++i) text += cat(i ? "," : "", numbers[i]);
  return text + (numbers.size() > 8 ? ",...]" : "]");
}

struct RawEntry {
  std::string name, dtype;
  std::vector<std::uint64_t> shape, offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

/// Receives the parser's events. `problem` is set, and parsing stops, at the first thing the format does not allow.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<RawEntry> entries;
  std::map<std::string, std::string> metadata;
  std::string problem;

  bool null() override { return refuse("null is not allowed"); }
  bool boolean(bool) override { return refuse("true and false are not allowed"); }
  bool number_integer(number_integer_t) override { return refuse("a number is negative"); }
  bool number_float(number_float_t, const string_t&) override {
    return refuse("a number is not a whole number below 2^64");
  }
  bool binary(binary_t&) override { return refuse("binary values are not allowed"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (level_ != Level::list) return refuse("a number stands where none is allowed");
    if (list_->size() >= 64) return refuse("a list has more than 64 numbers");
    list_->push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (level_ == Level::metadata) {
      metadata[key_] = std::move(value);
      return true;
    }
    if (level_ != Level::tensor || key_ != "dtype") return refuse("text stands where none is allowed");
    entries.back().dtype = std::move(value);
    entries.back().has_dtype = true;
    return true;
  }
  bool key(string_t& name) override {
    if (level_ == Level::top) {
      key_ = name;
      if (!names_.insert(name).second) return refuse("the name occurs twice");
    } else if (level_ == Level::metadata) {
      if (metadata.count(name)) return refuse("the metadata key " + shown(name) + " occurs twice");
    } else {
      const RawEntry& e = entries.back();
      const bool known = name == "dtype" || name == "shape" || name == "data_offsets";
      if (!known) return refuse("the unknown field " + shown(name));
      if ((name == "dtype" && e.has_dtype) || (name == "shape" && e.has_shape) ||
          (name == "data_offsets" && e.has_offsets))
        return refuse("the field " + shown(name) + " occurs twice");
    }
    key_ = std::move(name);
    return true;
  }
  bool start_object(std::size_t) override {
    if (level_ == Level::before) {
      level_ = Level::top;
    } else if (level_ == Level::top && key_ == "__metadata__") {
      level_ = Level::metadata;
    } else if (level_ == Level::top) {
      level_ = Level::tensor;
      entries.emplace_back().name = key_;
    } else {
      return refuse("an object is nested too deeply");
    }
    return true;
  }
  bool end_object() override {
    if (level_ == Level::tensor) {
      const RawEntry& e = entries.back();
      if (!e.has_dtype || !e.has_shape || !e.has_offsets) return refuse("dtype, shape or data_offsets is missing");
    }
    level_ = level_ == Level::top ? Level::before : Level::top;
    key_.clear();
    return true;
  }
  bool start_array(std::size_t) override {
    if (level_ != Level::tensor || key_ == "dtype") return refuse("a list stands where none is allowed");
    RawEntry& e = entries.back();
    const bool is_shape = key_ == "shape";
    (is_shape ? e.has_shape : e.has_offsets) = true;
    list_ = is_shape ? &e.shape : &e.offsets;
    level_ = Level::list;
    return true;
  }
  bool end_array() override {
    level_ = Level::tensor;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) override {
    if (problem.empty()) refuse(cat("it is not valid JSON (", std::string_view(e.what()).substr(0, 200), ")"));
    return false;
  }

 private:
  enum class Level { before, top, metadata, tensor, list };
  /// Says in whose description it stands; SafetensorsFile adds how far the header was read.
  bool refuse(const std::string& what) {
    const bool inside = level_ == Level::tensor || level_ == Level::list;
    const std::string& name = inside ? entries.back().name : key_;
    const bool metadata_part = level_ == Level::metadata || (level_ == Level::top && name == "__metadata__");
    problem = metadata_part                                       ? "__metadata__: " + what
              : inside || (level_ == Level::top && !name.empty()) ? cat("tensor ", shown(name), ": ", what)
                                                                  : what;
    return false;
  }
  Level level_ = Level::before;
  std::string key_;
  std::set<std::string> names_;
  std::vector<std::uint64_t>* list_ = nullptr;
};

/// The header's characters for the parser, which itself tells a position only where it fails itself.
struct CountedText {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* at;
  std::uint64_t* read;  // how many were taken
  reference operator*() const { return *at; }
  CountedText& operator++() { return ++at, ++*read, *this; }
  bool operator==(const CountedText& other) const { return at == other.at; }
};

/// Turns one raw entry into a checked one; offsets stay relative to the data part, which has data_bytes bytes.
SafetensorsEntry checked_entry(RawEntry&& raw, std::uint64_t data_bytes, const std::string& source) {
  const std::string where = cat(source, ": tensor ", shown(raw.name), " with data_offsets ", shown(raw.offsets), ": ");
  const auto type = std::find_if(kStored.begin(), kStored.end(), [&](const auto& t) { return t.name == raw.dtype; });
  check(type != kStored.end(), Kind::format, [&] { return cat(where, "unknown dtype ", shown(raw.dtype)); });
  check(type->dtype.has_value(), Kind::format, [&] {
    return cat(where, "dtype ", raw.dtype, " is not supported (F64, F32, F16, BF16, I64, I32 and U8 are); convert it");
  });
  check(raw.shape.size() <= Shape::kMaxRank, Kind::format,
        [&] { return cat(where, "it has ", raw.shape.size(), " axes, at most ", Shape::kMaxRank, " are supported"); });
  std::uint64_t bytes = type->bytes;
  const bool empty = std::find(raw.shape.begin(), raw.shape.end(), 0u) != raw.shape.end();
  Shape shape;
  for (const std::uint64_t extent : raw.shape) {
    // The product is bounded even beside an extent of zero, so that no later product of extents can overflow.
    check(extent <= std::uint64_t(std::numeric_limits<std::int64_t>::max()) / std::max<std::uint64_t>(bytes, 1),
          Kind::format, [&] { return cat(where, "its shape ", shown(raw.shape), " overflows 63 bits"); });
    bytes *= std::max<std::uint64_t>(extent, 1);
    shape.push_back(std::int64_t(extent));
  }
  if (empty) bytes = 0;
  check(raw.offsets.size() == 2, Kind::format,
        [&] { return cat(where, "these are ", raw.offsets.size(), " numbers instead of 2"); });
  const std::uint64_t begin = raw.offsets[0], end = raw.offsets[1];
  check(begin <= end && end <= data_bytes, Kind::format, [&] {
    return cat(where, "they do not lie in the data part of ", data_bytes,
               " bytes; the file is truncated or damaged, copy it again");
  });
  check(end - begin == bytes, Kind::format,
        [&] { return cat(where, raw.dtype, shape, " needs ", bytes, " bytes, they hold ", end - begin); });
  return {std::move(raw.name), std::string(type->name), *type->dtype, shape, begin, bytes};
}

float half_to_float(std::uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int fraction = h & 1023;
  const float sign = (h & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) {
    return fraction != 0 ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
  }
  return sign * (exponent == 0 ? std::ldexp(float(fraction), -24) : std::ldexp(float(1024 + fraction), exponent - 25));
}

}  // namespace

// ---- reader -------------------------------------------------------------------------------------------------------

SafetensorsFile::SafetensorsFile(std::string source, std::uint64_t total, Read read)
    : source_(std::move(source)), read_(std::move(read)) {
  check(total >= 8, Kind::format, [&] {
    return cat(source_, " has ", total, " bytes; a safetensors file has at least 8. It is truncated or another format");
  });
  std::array<std::byte, 8> raw_length{};
  read_(0, raw_length);
  std::uint64_t length = 0;
  std::memcpy(&length, raw_length.data(), 8);
  check(length <= kMaxHeaderBytes, Kind::format, [&] {
    return cat(source_, ": the header claims ", length, " bytes, more than the limit of ", kMaxHeaderBytes,
               "; this is not a safetensors file");
  });
  check(length <= total - 8, Kind::format, [&] {
    return cat(source_, ": the header claims ", length, " bytes, but only ", total - 8,
               " follow; the file is truncated");
  });
  std::string header(std::size_t(length), '\0');
  read_(8, std::as_writable_bytes(std::span(header.data(), header.size())));
  check(!header.empty() && header[0] == '{', Kind::format,
        [&] { return cat(source_, ": the header does not begin with '{' at byte 8; this is not a safetensors file"); });

  // The parser takes a zero byte for the end of the text: whatever stands behind it would be hidden.
  const std::size_t zero = header.find('\0');
  check(zero == std::string::npos, Kind::format, [&] {
    return cat(source_, ": bad header: it is not valid JSON, byte ", 8 + zero, " of the file is a zero byte");
  });

  HeaderReader reader;
  std::uint64_t taken = 0;
  const bool parsed = nlohmann::json::sax_parse(CountedText{header.data(), &taken},
                                                CountedText{header.data() + header.size(), &taken}, &reader);
  check(parsed, Kind::format, [&] {
    return cat(source_, ": bad header: ", reader.problem, "; found when its bytes 8 to ", 7 + taken,
               " of the file were read");
  });
  metadata_ = std::move(reader.metadata);

  const std::uint64_t data_bytes = total - 8 - length;
  entries_.reserve(reader.entries.size());
  for (RawEntry& raw : reader.entries) entries_.push_back(checked_entry(std::move(raw), data_bytes, source_));
  std::stable_sort(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.bytes < b.bytes;  // empty tensors come before their neighbour
  });
  std::uint64_t covered = 0;
  std::string before = "the data part";  // what ends where the next tensor must begin
  for (SafetensorsEntry& e : entries_) {
    check(e.begin == covered, Kind::format, [&] {
      return cat(source_, ": tensor ", shown(e.name), " begins at data byte ", e.begin, ", ", before,
                 covered == 0 ? " begins at " : " ends at ", covered,
                 e.begin < covered ? ": tensors overlap" : ": there is a hole");
    });
    covered = e.begin + e.bytes;
    if (e.bytes != 0) before = "tensor " + shown(e.name);
    e.begin += 8 + length;
  }
  check(covered == data_bytes, Kind::format, [&] {
    return cat(source_, ": ", before, covered == 0 ? " begins at " : " ends at ", "data byte ", covered, ", and the ",
               data_bytes - covered, " bytes behind belong to no tensor");
  });
  for (std::size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto file = std::make_shared<FileHandle>(open_for_reading(path));
  struct stat info {};
  check(::fstat(file->get(), &info) == 0, Kind::io, [&] { return io_message("inspect", path, errno); });
  return {path.string(), std::uint64_t(info.st_size), [file, path](std::uint64_t offset, std::span<std::byte> bytes) {
            read_at(file->get(), offset, bytes, path);
          }};
}

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes, std::string source) {
  return {std::move(source), bytes.size(), [bytes](std::uint64_t offset, std::span<std::byte> to) {
            if (!to.empty()) std::memcpy(to.data(), bytes.data() + offset, to.size());
          }};
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &entries_[at->second];
}

std::vector<std::byte> SafetensorsFile::converted(const SafetensorsEntry& e) const {
  std::vector<std::byte> stored(static_cast<std::size_t>(e.bytes));
  read_(e.begin, stored);
  const auto count = std::size_t(e.shape.size());
  if (e.stored == "F16") {
    std::vector<std::byte> wide(count * 4);
    for (std::size_t i = 0; i < count; ++i) {
      std::uint16_t half = 0;
      std::memcpy(&half, stored.data() + 2 * i, 2);
      const float value = half_to_float(half);
      std::memcpy(wide.data() + 4 * i, &value, 4);
    }
    return wide;
  }
  if (e.stored == "I64") {
    std::vector<std::byte> narrow(count * 4);
    for (std::size_t i = 0; i < count; ++i) {
      std::int64_t value = 0;
      std::memcpy(&value, stored.data() + 8 * i, 8);
      const auto small = std::int32_t(value);
      check(small == value, Kind::format, [&] {
        return cat(source_, ": tensor ", shown(e.name), ": value ", value, " at position ", i, ", byte ",
                   e.begin + 8 * i, " of the file, does not fit i32");
      });
      std::memcpy(narrow.data() + 4 * i, &small, 4);
    }
    return narrow;
  }
  return stored;
}

void SafetensorsFile::check_fits(const SafetensorsEntry& e, const Tensor& t) const {
  check(bool(t), Kind::internal, [&] { return cat(source_, ": no tensor given for ", shown(e.name)); });
  check(t.shape() == e.shape, Kind::shape, [&] {
    return cat(source_, ": tensor ", shown(e.name), " at byte ", e.begin, " has shape ", e.shape, ", expected ",
               t.shape(), "; the file belongs to another model or configuration");
  });
  const bool widens = e.dtype == DType::f32 && t.dtype() == DType::f64;
  check(t.dtype() == e.dtype || widens, Kind::dtype, [&] {
    return cat(source_, ": tensor ", shown(e.name), " at byte ", e.begin, " is ", e.stored, ", expected ", t.dtype(),
               "; the file was written with another precision",
               e.dtype == DType::f64 ? ": open it with --device reference" : "");
  });
}

void SafetensorsFile::load_into(const SafetensorsEntry& e, const Tensor& t) const {
  check_fits(e, t);
  if (t.bytes() == 0) return;
  const bool as_stored = e.bytes == t.bytes() && e.stored == stored_name(t.dtype());
  if (as_stored && t.device().is_host()) {
    read_(e.begin, std::span(static_cast<std::byte*>(t.data()), t.bytes()));
    return;
  }
  std::vector<std::byte> bytes = converted(e);
  if (e.dtype != t.dtype()) {
    std::vector<std::byte> wide(t.bytes());
    for (std::size_t i = 0; i < std::size_t(t.size()); ++i) {
      float value = 0.0f;
      std::memcpy(&value, bytes.data() + 4 * i, 4);
      const double same = value;
      std::memcpy(wide.data() + 8 * i, &same, 8);
    }
    bytes = std::move(wide);
  }
  DeviceRuntime& device = runtime(t.device());
  device.copy_from_host(t.data(), bytes.data(), bytes.size(), {});
  device.synchronize({});
}

Tensor SafetensorsFile::load(const SafetensorsEntry& e, Device device) const {
  Tensor t = Tensor::empty(e.shape, e.dtype, device);
  load_into(e, t);
  return t;
}

Tensor SafetensorsFile::load(std::string_view name, Device device) const {
  const SafetensorsEntry* entry = find(name);
  check(entry != nullptr, Kind::format, [&] {
    std::string some;
    for (std::size_t i = 0; i < std::min<std::size_t>(entries_.size(), 8); ++i)
      some += (i ? ", " : "") + shown(entries_[i].name);
    return cat(source_, " holds no tensor ", shown(name), "; it has ", entries_.size(), ": ", some,
               entries_.size() > 8 ? ", ..." : "");
  });
  return load(*entry, device);
}

// ---- writer -------------------------------------------------------------------------------------------------------

namespace {

std::string header_text(const std::vector<const NamedTensor*>& tensors,
                        const std::map<std::string, std::string>& meta) {
  // Written by hand because JSON libraries sort or hash keys, and the order of the data should be readable here.
  std::string text = "{";
  if (!meta.empty()) text += "\"__metadata__\":" + nlohmann::json(meta).dump();
  std::uint64_t offset = 0;
  for (const NamedTensor* item : tensors) {
    const Tensor& t = item->tensor;
    if (text.size() > 1) text += ',';
    text += cat(nlohmann::json(item->name).dump(), ":{\"dtype\":\"", stored_name(t.dtype()), "\",\"shape\":", t.shape(),
                ",\"data_offsets\":[", offset, ',', offset + t.bytes(), "]}");
    offset += t.bytes();
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

void write_data(AtomicFile& file, const Tensor& t) {
  if (t.bytes() == 0) return;
  if (t.device().is_host()) {
    file.write(std::span(static_cast<const std::byte*>(t.data()), t.bytes()));
    return;
  }
  constexpr std::size_t kPiece = std::size_t(8) << 20;
  std::vector<std::byte> piece(std::min(kPiece, t.bytes()));
  DeviceRuntime& device = runtime(t.device());
  for (std::size_t at = 0; at < t.bytes(); at += kPiece) {
    const std::size_t n = std::min(kPiece, t.bytes() - at);
    device.copy_to_host(piece.data(), static_cast<const std::byte*>(t.data()) + at, n, {});
    device.synchronize({});
    file.write(std::span<const std::byte>(piece).first(n));
  }
}

}  // namespace

SafetensorsWritten write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                                     const std::map<std::string, std::string>& metadata, SafetensorsOrder order) {
  std::vector<const NamedTensor*> list;
  std::set<std::string_view> names;
  for (const NamedTensor& item : tensors) {
    check(bool(item.tensor), Kind::usage,
          [&] { return cat("cannot write ", path.string(), ": tensor ", shown(item.name), " has no storage"); });
    check(item.name != "__metadata__" && names.insert(item.name).second, Kind::usage, [&] {
      return cat("cannot write ", path.string(), ": the tensor name ", shown(item.name), " is used twice or reserved");
    });
    list.push_back(&item);
  }
  if (order == SafetensorsOrder::aligned) {
    std::sort(list.begin(), list.end(), [](const NamedTensor* a, const NamedTensor* b) {
      const std::size_t wide = size_of(a->tensor.dtype()), other = size_of(b->tensor.dtype());
      return wide != other ? wide > other : a->name < b->name;
    });
  }
  std::string header;
  try {
    header = header_text(list, metadata);
  } catch (const nlohmann::json::exception& e) {
    fail(Kind::usage, cat("cannot write ", path.string(), ": a tensor name or metadata is not UTF-8 (", e.what(), ")"));
  }
  const std::uint64_t length = header.size();
  check(length <= SafetensorsFile::kMaxHeaderBytes, Kind::usage,
        [&] { return cat("cannot write ", path.string(), ": its header would have ", length, " bytes"); });
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const NamedTensor* item : list) write_data(file, item->tensor);
  file.commit();
  return {file.bytes(), file.checksum()};
}

}  // namespace eg
