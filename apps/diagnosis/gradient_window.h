// apps/diagnosis/gradient_window.h - the last few gradients of each module: do they agree, and how many directions do
// they span (methods.md D.3). What ARROW keeps for its own use, kept here for every method.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "apps/diagnosis/modules.h"
#include "engine/tensor.h"

namespace eg {

/// Gradients of at most this many elements are kept as they are; larger ones as a count sketch of that size, which
/// keeps inner products to 1/sqrt(size) of the norms' product (Charikar et al. 2002).
constexpr std::int64_t kSketchSize = 4096;

/// Adds the count sketch of `x` into `out`: element i goes, with a random sign, to a random place, both fixed by i.
void count_sketch(std::span<const double> x, std::span<double> out);

struct WindowStatistics {
  double norm = 0.0;             // of the newest gradient
  double cosine = 0.0;           // mean over consecutive pairs
  double effective_rank = 0.0;   // of the window's covariance: exp of the entropy of its eigenvalues' square roots
  double top_share = 0.0;        // largest eigenvalue over their sum
  double diversity = 0.0;        // sum |g|^2 / |sum g|^2: 1 / n when all agree, 1 when they are orthogonal
  double noise_ratio = 0.0;      // variance of a gradient over the squared mean gradient, unbiased; NaN if that is <= 0
  std::vector<double> spectrum;  // eigenvalues of the covariance, descending
};
/// From the Gram matrix [n, n] of the window's gradients, oldest first.
WindowStatistics window_statistics(std::span<const double> gram, int n);

class GradientWindow {
 public:
  GradientWindow() = default;
  GradientWindow(const std::vector<ModuleView>& modules, int window);
  /// Takes the present gradients in.
  void push();
  void clear() { filled_.set_zero(); }
  std::int64_t filled() const;
  /// By module, in their order.
  std::vector<WindowStatistics> statistics() const;
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit);

 private:
  std::vector<ModuleView> modules_;
  int window_ = 0;
  std::vector<Tensor> columns_;  // by module, f32 [window, min(size, kSketchSize)], a ring
  Tensor filled_;                // i32 [1]: pushes so far
};

}  // namespace eg
