// apps/diagnosis/curvature.cpp - see curvature.h.
#include "apps/diagnosis/curvature.h"

#include <cmath>

#include "engine/error.h"
#include "engine/rng.h"

namespace eg {
namespace {

double norm(std::span<const double> v) {
  double sum = 0.0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

/// Power iteration on H - shift I; returns an eigenvalue of H.
TopEigenvalue iterate(const GradientAt& gradient, std::span<const double> x, std::vector<double> v, double e,
                      double shift, double tolerance, int most) {
  TopEigenvalue found;
  std::vector<double> plus(x.begin(), x.end()), minus = plus;
  double before = 0.0;
  for (; found.iterations < most; ++found.iterations) {
    const double length = norm(v);
    if (length == 0.0 || !std::isfinite(length)) break;
    for (double& a : v) a /= length;
    for (std::size_t i = 0; i < v.size(); ++i) plus[i] = x[i] + e * v[i], minus[i] = x[i] - e * v[i];
    const std::vector<double> up = gradient(plus), down = gradient(minus);
    double rayleigh = 0.0;
    std::vector<double> hv(v.size());
    for (std::size_t i = 0; i < v.size(); ++i) {
      hv[i] = (up[i] - down[i]) / (2.0 * e) - shift * v[i];
      rayleigh += v[i] * hv[i];
    }
    found.value = rayleigh + shift;
    if (found.iterations > 0 && std::abs(rayleigh - before) <= tolerance * std::abs(rayleigh)) {
      found.converged = true, ++found.iterations;
      break;
    }
    before = rayleigh, v = std::move(hv);
  }
  return found;
}

}  // namespace

TopEigenvalue top_hessian_eigenvalue(const GradientAt& gradient, std::span<const double> x, std::uint64_t seed,
                                     double step, double tolerance, int most, bool positive) {
  const double length = norm(x), e = step * (length > 0.0 ? length : 1.0);
  const Key random = key(seed, "diagnosis", "hessian");
  std::vector<double> v(x.size());
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = random.normal(i);
  TopEigenvalue first = iterate(gradient, x, v, e, 0.0, tolerance, most);
  if (first.value >= 0.0 || !positive) return first;
  // H - value I has no negative eigenvalue left, so its largest one belongs to the top of H.
  TopEigenvalue second = iterate(gradient, x, v, e, first.value, tolerance, most);
  second.iterations += first.iterations;
  return second;
}

double hessian_trace(const GradientAt& gradient, std::span<const double> x, std::uint64_t seed, int vectors,
                     double step) {
  check(vectors > 0, Kind::usage, [&] { return cat("hessian_trace: ", vectors, " vectors"); });
  const double length = norm(x), e = step * (length > 0.0 ? length : 1.0) / std::sqrt(double(x.size()));
  std::vector<double> plus(x.size()), minus(x.size());
  double sum = 0.0;
  for (int k = 0; k < vectors; ++k) {
    const Key random = key(seed, "diagnosis", "trace", std::uint32_t(k));
    const auto sign = [&](std::size_t i) { return random.below(i, 2) ? 1.0 : -1.0; };
    for (std::size_t i = 0; i < x.size(); ++i) plus[i] = x[i] + e * sign(i), minus[i] = x[i] - e * sign(i);
    const std::vector<double> up = gradient(plus), down = gradient(minus);
    for (std::size_t i = 0; i < x.size(); ++i) sum += sign(i) * (up[i] - down[i]) / (2.0 * e);
  }
  return sum / vectors;
}

TopEigenvalue top_preconditioned_eigenvalue(const GradientAt& gradient, std::span<const double> x,
                                            std::span<const double> d, std::uint64_t seed, double step,
                                            double tolerance, int most) {
  check(d.size() == x.size(), Kind::shape,
        [&] { return cat("a preconditioner of ", d.size(), " numbers for ", x.size(), " weights"); });
  std::vector<double> root(d.size()), y(x.size());
  for (std::size_t i = 0; i < d.size(); ++i) {
    check(d[i] > 0.0, Kind::usage, [&] { return cat("preconditioner: entry ", i, " is ", d[i], ", not positive"); });
    root[i] = std::sqrt(d[i]), y[i] = x[i] * root[i];
  }
  const GradientAt scaled = [&](std::span<const double> at) {
    std::vector<double> weights(at.size());
    for (std::size_t i = 0; i < at.size(); ++i) weights[i] = at[i] / root[i];
    std::vector<double> g = gradient(weights);
    for (std::size_t i = 0; i < g.size(); ++i) g[i] /= root[i];
    return g;
  };
  return top_hessian_eigenvalue(scaled, y, seed, step, tolerance, most);
}

}  // namespace eg
