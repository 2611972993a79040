// apps/continual/evaluate.h - tests of a network that learns task after task: on the task in hand, and on earlier ones.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "apps/continual/plan.h"
#include "apps/continual/position.h"
#include "apps/run/checkpoint.h"

namespace eg {

/// The test samples of the classes that the task brought; the others belong to earlier tasks.
SampleSet own_test(const Task& task);

/// Pixel mean and deviation of the first task's training images: what the network of a pair normalises with.
TrainerConfig with_stats(TrainerConfig config, const Plan& plan, const Task& first);

/// With several ranks in the trainer, each tests a part of the images.
/// Test accuracy on the given samples of a task, under the test mask of `mask_of` (usually the same task).
Evaluation test_task(const Plan& plan, const Pair& pair, Trainer& trainer, const Task& task, const SampleSet& samples);

/// Test accuracy on tasks 0 .. now, in that order, each with its own head where every task has one. Where classes
/// arrive, all classes so far compete, as in the test of the newest task.
std::vector<Evaluation> test_earlier(const Plan& plan, const Pair& pair, Trainer& trainer, const TaskStream& stream,
                                     std::int64_t now);

/// The network of a stream's run at one of its checkpoints, with everything of the run that gives it a meaning. Until
/// restore() it is the first network of its seed.
struct OpenedRun {
  /// Throws Error{io|format} when the checkpoint is damaged, is not one of such a run, or was written between two runs
  /// and holds no weights.
  OpenedRun(const ContinualOptions& options, const std::string& checkpoint_path);
  /// The checkpoint's weights and optimizer state into the trainer; what belongs to the run's own diagnosis stays out.
  void restore();
  /// "adamw, seed 1, after task 3 of 10"
  std::string describe() const;

  const Plan plan;
  const Checkpoint checkpoint;
  const Position at;
  const Pair& pair;
  const std::shared_ptr<const TaskStream> stream;
  const std::int64_t now;  // the task in hand, or the last one that was learned
  Trainer trainer;
};

}  // namespace eg
