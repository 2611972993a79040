// apps/training/training.h - ordinary supervised learning on one data set: `evergrad train`, and the test of what it
// left.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "apps/options.h"
#include "apps/run/rank_options.h"
#include "apps/setup.h"
#include "apps/trainer.h"

namespace CLI {
class App;
}

namespace eg {

struct TrainOptions {
  ModelOptions model;
  DataOptions data;
  TrainingOptions training;
  MachineOptions machine;
  RankOptions ranks;
  std::string method = "adamw", out = "runs/train", checkpoint;
  std::uint64_t seed = 1;
  int classes = 0;
  bool resume = false;
  double checkpoint_seconds = 60.0;
};

/// The flags that `train` and `eval` share.
void add_train_options(CLI::App& sub, TrainOptions& o, std::string& config);

/// Trains on the whole training set, a test after every epoch. Returns the exit code: 0, 130 or 143 after a signal
/// (resumable), 1 when the loss was not finite. Throws Error for anything that a person must change.
int run_training(TrainOptions options);

/// The network that `evergrad train` left in o.checkpoint (its moving average, where there is one) and its data.
struct OpenedTraining {
  /// `o`: the configuration of that run. Throws Error{io|format|shape}.
  explicit OpenedTraining(TrainOptions o);
  const TrainOptions options;  // resolved
  const ResolvedMachine machine;
  const std::shared_ptr<const Dataset> data;
  const Task task;
  Trainer trainer;
};

/// Prints the test accuracy of o.checkpoint, which `evergrad train` wrote. Throws Error{io|format|shape}.
int evaluate_training(TrainOptions options);

struct DiagnoseOptions;
/// Prints what the weights of o.checkpoint, which `evergrad train` wrote, say about the network (apps/diagnosis). Throws
/// Error{io|format|shape|usage}.
int diagnose_training(TrainOptions options, const DiagnoseOptions& d);

}  // namespace eg
