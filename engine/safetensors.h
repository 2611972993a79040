// engine/safetensors.h - named tensors in one file: 8 bytes with the length of a JSON header, the header, the data.
//
// The format is the one documented at https://github.com/huggingface/safetensors: the header maps each name to
// {"dtype", "shape", "data_offsets": [begin, end]} with offsets into the data part, and "__metadata__" to a map from
// text to text. The data part must be covered completely, without overlap and without holes, so that a file cannot hide
// anything and every byte has one meaning. All numbers are little-endian.
//
// The reader trusts nothing: whatever the bytes are, it either gives tensors that lie inside the file or throws
// Error{format} naming the file, the tensor and the broken rule. Memory is bounded by the size of the header.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor.h"

namespace eg {

/// A tensor and what a file calls it.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// One tensor of a file, checked: `bytes` is exactly what stored type and shape need, and lies inside the file.
struct SafetensorsEntry {
  std::string name;
  std::string stored;        // type in the file: F64 F32 F16 BF16 I64 I32 U8
  DType dtype = DType::f32;  // what load() gives: F16 is widened to f32, I64 narrowed to i32 (values are checked)
  Shape shape;
  std::uint64_t begin = 0;  // first byte in the file
  std::uint64_t bytes = 0;
};

/// An open file whose header was checked: names, types, shapes, and that the data lies inside. Tensors are read when
/// asked for.
class SafetensorsFile {
 public:
  /// The largest header accepted, as in the reference implementation.
  static constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
  /// Reads and checks the header; tensor data is read when asked for. Throws Error{io} or Error{format}.
  static SafetensorsFile open(const std::filesystem::path& path);
  /// The same for bytes in memory, which must outlive the object. `source` is the name used in messages.
  static SafetensorsFile parse(std::span<const std::byte> bytes, std::string source);

  /// In the order of the data.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& source() const { return source_; }
  /// nullptr when there is none of that name.
  const SafetensorsEntry* find(std::string_view name) const;
  /// A new tensor with the values. Throws Error{format} when an I64 value does not fit i32, Error{io} on a read error.
  Tensor load(const SafetensorsEntry& entry, Device device) const;
  /// Throws Error{format} that lists some names when there is none of that name.
  Tensor load(std::string_view name, Device device) const;
  /// Fills an existing tensor, on any device. F32 fits an f64 tensor too, exactly: the reference device opens what the
  /// others wrote. Throws Error{shape} or Error{dtype} when the entry does not fit.
  void load_into(const SafetensorsEntry& entry, const Tensor& tensor) const;
  /// Throws what load_into would throw for shape and dtype, without touching anything.
  void check_fits(const SafetensorsEntry& entry, const Tensor& tensor) const;

 private:
  using Read = std::function<void(std::uint64_t offset, std::span<std::byte> bytes)>;
  SafetensorsFile(std::string source, std::uint64_t total, Read read);
  std::vector<std::byte> converted(const SafetensorsEntry& entry) const;
  std::string source_;
  Read read_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

enum class SafetensorsOrder : std::uint8_t {
  aligned,  // widest types first, then by name: every tensor is aligned to its type, and equal sets give equal files
  given     // as passed
};
struct SafetensorsWritten {
  std::uint64_t bytes = 0, checksum = 0;
};  // checksum: engine/file.h, over the whole file

/// Writes the file atomically (engine/file.h). Tensors may be on any device; the header is padded with spaces so that
/// the data begins at a multiple of 8. Throws Error{usage} for an empty tensor handle, a name used twice or not UTF-8,
/// or the reserved name "__metadata__"; Error{io} when writing fails, and then nothing under `path` has changed.
SafetensorsWritten write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                                     const std::map<std::string, std::string>& metadata = {},
                                     SafetensorsOrder order = SafetensorsOrder::aligned);

}  // namespace eg
