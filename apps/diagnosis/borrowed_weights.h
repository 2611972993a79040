// apps/diagnosis/borrowed_weights.h - a network whose weights are changed for a while, to see what that does.
#pragma once
#include <vector>

#include "apps/trainer.h"

namespace eg {

/// While it lives the trainer's weights may be overwritten; then they are again what they were, bit for bit.
class BorrowedWeights {
 public:
  explicit BorrowedWeights(Trainer& trainer) : trainer_(trainer), saved_(trainer.arena().master.to_host()) {}
  ~BorrowedWeights() { write(saved_); }
  BorrowedWeights(const BorrowedWeights&) = delete;
  BorrowedWeights& operator=(const BorrowedWeights&) = delete;
  /// The weights as they were, laid out as the arena.
  const std::vector<double>& values() const { return saved_; }
  void write(const std::vector<double>& master) const {
    const Tensor& m = trainer_.arena().master;
    m.copy_from(Tensor::from(master, m.shape(), m.dtype(), kCpu));
    trainer_.arena().refresh_work();
  }

 private:
  Trainer& trainer_;
  std::vector<double> saved_;
};

}  // namespace eg
