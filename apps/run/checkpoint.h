// apps/run/checkpoint.h - everything a bitwise resume needs, on disk, never half written.
//
// A checkpoint is checkpoints/step-<N>.safetensors with the tensors and checkpoints/step-<N>.json with the small state
// and a checksum of both. The JSON is renamed into place last: it is what makes a checkpoint exist. The last two are
// kept, so that one damaged file costs the time between two checkpoints and not the run.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/safetensors.h"

namespace eg {

/// A checkpoint read back: complete, its checksums right.
struct Checkpoint {
  std::int64_t step = 0;
  nlohmann::json state;
  SafetensorsFile tensors;
  /// Copies every named tensor's values from the file into the given tensors, on any device. All names, shapes and
  /// types are checked before the first value is written. Throws Error{format}, Error{shape} or Error{dtype} naming the
  /// tensor when something does not fit, is missing, or is left over in the file.
  void restore(std::span<const NamedTensor> into) const;
};

class Checkpoints {
 public:
  /// Opens or creates the folder and removes what a killed process left half written. Throws Error{io}.
  explicit Checkpoints(std::filesystem::path folder);
  /// A folder that another rank writes: only to be read.
  static Checkpoints read_only(std::filesystem::path folder);
  /// Writes a checkpoint and then removes all but the last two. When it throws (Error{io}: full disk, ...) the earlier
  /// checkpoints are untouched. `state` must be text and numbers that JSON can hold (NaN becomes null).
  void save(std::int64_t step, std::span<const NamedTensor> tensors, const nlohmann::json& state);
  /// The newest checkpoint that is whole. Each damaged one adds a sentence to `notes`. Nothing when none is left.
  std::optional<Checkpoint> load_latest(std::vector<std::string>* notes) const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  Checkpoints() = default;
  std::filesystem::path folder_;
};

/// Opens one checkpoint by its .json or .safetensors file, or the newest good one of a checkpoints or run folder.
/// Throws Error{io} or Error{format} that says what is damaged.
Checkpoint open_checkpoint(const std::filesystem::path& path);

}  // namespace eg
