// optim/host_training.h - what a training loop on the CPU keeps beside its model: the memory of weights and gradients,
// the method, and the record of the step. `evergrad train` does this on every device, with schedules, ranks and
// checkpoints; a program of one's own needs no more than
//
//   HostTraining training(parameters(model), depth, {.method = "adamw"});
//   training.begin(images_in_batch);  // then the forward pass, and backward
//   training.finish();
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "optim/optimizer.h"

namespace eg {

/// How weights begin, and how they are updated.
struct HostTrainingOptions {
  std::string method = "adamw";       // as parse_method reads it
  double lr = -1, weight_decay = -1;  // negative: the method's own
  double max_norm = 1.0;              // to which the gradient's norm is clipped; 0: never
  std::uint64_t seed = 1;             // of the weights, and of what the forward pass draws
};

/// Weights in single precision with a method that updates them. Not copied or moved: the parameters point into it.
class HostTraining {
 public:
  /// Allocates and draws the weights of these parameters, which outlive it, of a model with `depth` blocks. Throws
  /// Error{usage} for a method that needs another model or another loop (crelu, l2p, sam, adaptive-replay): `evergrad
  /// train` and `continual` have those.
  HostTraining(std::vector<Param*> parameters, int depth, const HostTrainingOptions& options = {});
  HostTraining(const HostTraining&) = delete;
  HostTraining& operator=(const HostTraining&) = delete;

  /// Before the forward pass of a batch: writes the learning rate, times lr_factor of a schedule, and the global number
  /// of the batch's first image, by which stochastic depth draws.
  void begin(std::int64_t images, std::uint64_t first_sample = 0, double lr_factor = 1.0);
  /// After backward: norm and clipping of the gradient, the update, the count. A gradient that is not finite changes
  /// nothing but record().skipped.
  void finish();

  const StepRecord& record() const { return record_; }
  const ParamArena& arena() const { return arena_; }
  Optimizer& optimizer() { return *optimizer_; }

 private:
  StepContext context();
  std::vector<Param*> params_;
  int depth_ = 0;
  ParamArena arena_;
  StepRecord record_;
  std::int64_t images_ = 0;
  double lr_factor_ = 1.0;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace eg
