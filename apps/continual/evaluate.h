// apps/continual/evaluate.h - tests of a network that learns task after task: on the task in hand, and on earlier ones.
#pragma once
#include <cstdint>
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

/// Where the run stood when the checkpoint was written. Throws Error{format} when it is not one of such a run, or was
/// written between two runs and holds no weights.
Position restorable_position(const Checkpoint& checkpoint, const std::string& path, const Plan& plan);
/// The checkpoint's weights and optimizer state into the trainer; what belongs to the run's own diagnosis stays out.
void restore_trainer(const Checkpoint& checkpoint, Trainer& trainer);

}  // namespace eg
