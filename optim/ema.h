// optim/ema.h - an exponential moving average of the weights (Polyak & Juditsky 1992), for evaluation.
#pragma once
#include <memory>

#include <optional>

#include "engine/collectives/division.h"
#include "optim/optimizer.h"

namespace eg {

class Ema {
 public:
  /// Starts from the present weights. decay in (0, 1): average = decay average + (1 - decay) weight after every update.
  /// With a division of the arena each rank keeps its pieces; then apply() and average() are called by all ranks together.
  Ema(ParamArena& arena, double decay, std::optional<Division> division = std::nullopt);
  /// After an update; a step that was skipped because its gradient was not finite leaves the average alone.
  void update(const StepContext& ctx);
  /// The average becomes the present weights (a head was drawn anew: its old average means nothing).
  void rebase();
  /// All of the average, for checkpoints; after its values were replaced, restored() takes them, and saved() needs them no
  /// more.
  Tensor& average();
  std::size_t state_bytes() const { return average_.bytes(); }
  void restored();
  void saved() { whole_ = {}; }

  /// While it lives the model computes with the average; then the trained weights return, bit for bit.
  class Applied {
   public:
    Applied(ParamArena& arena, const Tensor& average);
    ~Applied();
    Applied(const Applied&) = delete;
    Applied& operator=(const Applied&) = delete;

   private:
    ParamArena& arena_;
    Tensor trained_;
  };
  std::unique_ptr<Applied> apply();

 private:
  ParamArena& arena_;
  double decay_;
  std::optional<Division> division_;
  void take(const Tensor& weights);
  Tensor average_, whole_;  // what this rank keeps; what average() gathered
};

}  // namespace eg
