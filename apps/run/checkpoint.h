// apps/run/checkpoint.h - everything a bitwise resume needs, on disk, never half written.
//
// A checkpoint is checkpoints/step-<N>.safetensors with the tensors and checkpoints/step-<N>.json with the small state
// and checksums of both. Ranks that divide tensors among them (--zero 1) write their parts side by side, rank R into
// step-<N>.rank-<R>.safetensors, and the JSON names all files. It is renamed into place last: it is what makes a checkpoint
// exist. The last two are kept, so that one damaged file costs the time between two checkpoints and not the run.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/run/checkpoint_tensors.h"

namespace eg {

/// A checkpoint read back: complete, its checksums right.
struct Checkpoint {
  std::int64_t step = 0;
  nlohmann::json state;
  CheckpointTensors tensors;
  /// Copies every named tensor's values from the files into the given tensors, on any device. All names, shapes and
  /// types are checked before the first value is written. Throws Error{format}, Error{shape} or Error{dtype} naming the
  /// tensor when something does not fit, is missing, or is left over in the files.
  void restore(std::span<const StateTensor> into) const;
};

class Checkpoints {
 public:
  /// Opens or creates the folder and removes what belongs to no checkpoint, because whoever wrote it was killed. Throws Error{io}.
  explicit Checkpoints(std::filesystem::path folder);
  /// A folder that another rank has opened: to read, and to write a part of what that one publishes.
  static Checkpoints of_another_rank(std::filesystem::path folder);

  /// Writes a checkpoint and then removes all but the last two. When it throws (Error{io}: full disk, ...) the earlier
  /// checkpoints are untouched. `state` must be text and numbers that JSON can hold (NaN becomes null).
  void save(std::int64_t step, std::span<const StateTensor> tensors, const nlohmann::json& state);

  /// The same by several ranks, in this order: a name for the files of `step`, which the first chooses; every rank's file with
  /// its parts, the first's with whole tensors besides, and what is to be said of it; and the JSON of them all, by the first.
  std::string new_name(std::int64_t step) const;
  nlohmann::json write_file_of_rank(const std::string& name, int rank, std::int64_t step,
                                    std::span<const StateTensor> tensors) const;
  void publish(std::int64_t step, const std::vector<nlohmann::json>& files, const nlohmann::json& state);

  /// How several ranks look at one folder: each reads every parts-th file through, and all hear what the first damage is.
  struct Sharing {
    int part = 0, parts = 1;
    std::function<std::string(const std::string& mine)> first_damage;  // empty: none
  };
  /// The newest checkpoint that is whole. Each damaged one adds a sentence to `notes`. Nothing when none is left.
  std::optional<Checkpoint> load_latest(std::vector<std::string>* notes) const { return load_latest(notes, Sharing()); }
  std::optional<Checkpoint> load_latest(std::vector<std::string>* notes, const Sharing& sharing) const;
  /// Names of all that load_latest would look at, the newest first.
  std::string listing() const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  Checkpoints() = default;
  std::filesystem::path folder_;
};

/// Opens one checkpoint by its .json or one of its .safetensors files, or the newest good one of a checkpoints or run folder.
/// Throws Error{io} or Error{format} that says what is damaged.
Checkpoint open_checkpoint(const std::filesystem::path& path);

}  // namespace eg
