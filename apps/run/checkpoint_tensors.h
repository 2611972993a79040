// apps/run/checkpoint_tensors.h - the tensors of one checkpoint, whether one process has written them or several ranks each its
// part of them.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/safetensors.h"
#include "engine/tensor_part.h"

namespace eg {

/// A tensor of a run's state. part: where ranks divide it, which elements of the whole the tensor holds.
struct StateTensor : NamedTensor {
  std::optional<TensorPart> part;
};

/// One file of a checkpoint. A tensor of the file whose name has pieces holds these of a larger one, one behind the other.
struct CheckpointFile {
  SafetensorsFile file;
  std::map<std::string, std::vector<TensorPiece>> pieces;
};

/// Reads whole tensors and parts of them, however many ranks there were and are.
class CheckpointTensors {
 public:
  CheckpointTensors() = default;
  /// divided: the shapes of the tensors that files hold pieces of. Throws Error{format} when pieces and files do not fit together, or
  /// do not give every element once.
  CheckpointTensors(std::vector<CheckpointFile> files, const std::map<std::string, Shape>& divided);

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  /// nullptr when there is none of that name.
  const SafetensorsEntry* find(std::string_view name) const;
  /// What messages call it: the first file.
  const std::string& source() const;
  bool has_file(const std::filesystem::path& path) const;

  /// As those of SafetensorsFile; `entry` is one of entries().
  Tensor load(const SafetensorsEntry& entry, Device device) const;
  Tensor load(std::string_view name, Device device) const;
  void load_into(const SafetensorsEntry& entry, const Tensor& tensor) const;
  void check_fits(const SafetensorsEntry& entry, const Tensor& tensor) const;
  /// The same for a tensor of which a rank keeps a part. Reads the files alone that hold some of it.
  void load_into(const SafetensorsEntry& entry, const StateTensor& kept) const;
  void check_fits(const SafetensorsEntry& entry, const StateTensor& kept) const;

 private:
  /// Where a tensor comes from: everything of it from one file, or pieces from several.
  struct Source {
    std::size_t file = 0;
    std::vector<TensorPiece> pieces;
  };
  const std::vector<Source>& sources_of(const SafetensorsEntry& entry) const;
  void load_pieces(const SafetensorsEntry& entry, const Tensor& into, std::span<const TensorPiece> wanted) const;
  std::vector<CheckpointFile> files_;
  std::vector<SafetensorsEntry> entries_;
  std::vector<std::vector<Source>> sources_;  // of each entry
};

/// Copies what a rank keeps of a divided tensor to the host, one piece behind the other, as its file holds it.
Tensor compact_on_host(const Tensor& kept, const TensorPart& part);

}  // namespace eg
