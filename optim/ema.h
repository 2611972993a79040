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
  /// What this rank keeps: with a division its pieces, else the whole average. Checkpoints read and replace it.
  const Tensor& kept() const { return average_; }
  std::optional<TensorPart> part() const { return division_ ? std::optional(division_->part()) : std::nullopt; }
  /// All of it.
  Tensor average() const { return division_ ? division_->assemble(average_) : average_; }
  std::size_t state_bytes() const { return average_.bytes(); }

  /// While it lives the forward pass reads the average, and the masters stay where it reads a copy; then it reads the trained weights
  /// again, bit for bit. With a division all ranks make it and let it go together.
  class Applied {
   public:
    explicit Applied(const Ema& ema);
    ~Applied();
    Applied(const Applied&) = delete;
    Applied& operator=(const Applied&) = delete;

   private:
    const Ema& ema_;
    const int unwinding_;
    Tensor trained_;  // what the forward pass reads otherwise; with a division this rank's pieces of it
  };
  std::unique_ptr<Applied> apply();

 private:
  ParamArena& arena_;
  double decay_;
  std::optional<Division> division_;
  /// Everything that the forward pass reads, made of what the ranks keep in `pieces`.
  void lend(const Tensor& pieces) const;
  Tensor average_;
};

}  // namespace eg
