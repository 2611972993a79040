// apps/diagnosis/fragility.cpp - what it takes to break a network: curvature of its loss, noise, pruning, quantisation.
#include <array>
#include <cmath>
#include <limits>

#include "apps/diagnosis/curvature.h"
#include "apps/diagnosis/diagnosis.h"
#include "apps/diagnosis/robustness.h"

namespace eg {
namespace {

/// While it lives the block matrices may be changed; then they are again what they were, bit for bit.
class Borrowed {
 public:
  explicit Borrowed(Trainer& trainer) : trainer_(trainer), saved_(trainer.arena().master.to_host()) {}
  ~Borrowed() { write(saved_); }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
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

}  // namespace

void measure_fragility(Trainer& trainer, const Batch& batch, const Tensor& class_mask,
                       const std::function<double()>& accuracy, double chance, Diagnosis& d) {
  const Borrowed borrowed(trainer);
  const std::vector<ModuleView> modules = block_modules(trainer.params());
  const auto harmed = [&](const std::function<void(std::span<double>, const ModuleView&)>& harm) {
    std::vector<double> w = borrowed.values();
    for (const ModuleView& m : modules) harm(std::span(w).subspan(std::size_t(m.offset()), std::size_t(m.size())), m);
    borrowed.write(w);
    return accuracy();
  };
  const double whole = accuracy();
  const auto scan = [&](const char* name, std::span<const double> levels, const auto& harm) {
    std::vector<double> found{whole};
    for (const double level : levels.subspan(1))
      found.push_back(harmed([&](std::span<double> w, const ModuleView& m) { harm(w, m, level); }));
    d.model[std::string("robustness.") + name] = {robust_area(levels, found, chance)};
  };
  constexpr std::array<double, 7> noise = {0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4};
  scan("noise", noise, [&](std::span<double> w, const ModuleView& m, double level) {
    add_weight_noise(w, level, trainer.seed(), cat("noise/", m.block, ".", m.name()), 0);
  });
  constexpr std::array<double, 10> shares = {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9};
  scan("pruning", shares, [](std::span<double> w, const ModuleView&, double level) { prune_smallest(w, level); });
  constexpr std::array<double, 6> bits = {16, 8, 6, 5, 4, 3};
  scan("quantisation", bits,
       [](std::span<double> w, const ModuleView& m, double level) { quantise_rows(w, m.rows, int(level)); });

  // The finite differences need gradients that are finer than bf16.
  if (trainer.model().config.precision == DType::bf16) {
    d.model["hessian.top"] = {std::numeric_limits<double>::quiet_NaN()};
    return;
  }
  const StepInputs in = inputs_of(batch, class_mask, trainer.model().config.classes, trainer.device());
  const auto gradient = [&](std::span<const double> x) {
    borrowed.write({x.begin(), x.end()});
    Tape tape;
    const Watched watched(tape, trainer.model(), false);
    const Tensor logits = forward(trainer.model(), in.images, trainer.context(false));
    backward(tape, cross_entropy(logits, in.labels, {}, class_mask, 0.0, double(in.count), nullptr));
    return trainer.arena().grad.to_host();
  };
  const TopEigenvalue top = top_hessian_eigenvalue(gradient, borrowed.values(), trainer.seed());
  d.model["hessian.top"] = {top.converged ? top.value : std::numeric_limits<double>::quiet_NaN()};
}

}  // namespace eg
