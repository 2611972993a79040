// apps/diagnosis/curvature.h - the largest eigenvalue of the loss's Hessian, from gradients alone (methods.md D.5).
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace eg {

/// Gradient of a fixed loss at the given point; as long as the point.
using GradientAt = std::function<std::vector<double>(std::span<const double>)>;

struct TopEigenvalue {
  double value = 0.0;      // the largest one, or the one that is largest in absolute value (see `largest`)
  int iterations = 0;      // Hessian-vector products, two gradients each
  bool converged = false;  // the last two estimates differ by less than the tolerance
};
/// Power iteration on Hessian-vector products (grad(x + e v) - grad(x - e v)) / 2e with |v| = 1, e = step |x|, from a
/// direction drawn by seed. Finds the eigenvalue that is largest in absolute value; when that is negative and
/// `positive` is set, goes on with the spectrum shifted by it to find the largest positive one.
TopEigenvalue top_hessian_eigenvalue(const GradientAt& gradient, std::span<const double> x, std::uint64_t seed,
                                     double step = 1e-3, double tolerance = 0.01, int most = 50, bool positive = true);

/// Trace of the Hessian by Hutchinson's estimator: mean of z^T H z over vectors z of independent signs, each from two
/// gradients at x +- e z, e = step |x| / |z|. Exact for a diagonal Hessian.
double hessian_trace(const GradientAt& gradient, std::span<const double> x, std::uint64_t seed, int vectors = 8,
                     double step = 1e-3);

/// top_hessian_eigenvalue of D^-1/2 H D^-1/2, the Hessian as an optimizer sees it that divides every gradient by an entry of d: power
/// iteration in the coordinates D^1/2 x. Throws Error{shape} unless d is as long as x, Error{usage} unless d > 0.
TopEigenvalue top_preconditioned_eigenvalue(const GradientAt& gradient, std::span<const double> x,
                                            std::span<const double> d, std::uint64_t seed, double step = 1e-3,
                                            double tolerance = 0.01, int most = 50);

}  // namespace eg
