// optim/ema.h - an exponential moving average of the weights (Polyak & Juditsky 1992), for evaluation.
#pragma once
#include <memory>

#include "optim/optimizer.h"

namespace eg {

class Ema {
 public:
  /// Starts from the present weights. decay in (0, 1): average = decay average + (1 - decay) weight after every update.
  Ema(ParamArena& arena, double decay);
  /// After an update; a step that was skipped because its gradient was not finite leaves the average alone.
  void update(const StepContext& ctx);
  /// The average becomes the present weights (a head was drawn anew: its old average means nothing).
  void rebase();
  Tensor& average() { return average_; }

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
  std::unique_ptr<Applied> apply() { return std::make_unique<Applied>(arena_, average_); }

 private:
  ParamArena& arena_;
  double decay_;
  Tensor average_;
};

}  // namespace eg
