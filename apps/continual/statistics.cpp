// apps/continual/statistics.cpp - see statistics.h.
#include "apps/continual/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "apps/continual/measures.h"
#include "engine/error.h"
#include "engine/rng.h"

namespace eg {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// The regularised incomplete beta function I_x(a, b) by its continued fraction, evaluated by Lentz's method
/// (Abramowitz & Stegun 26.5.8); x below (a + 1) / (a + b + 2), where it converges fast.
double beta_fraction(double x, double a, double b) {
  const double tiny = 1e-300;
  double c = 1.0, d = 1.0 - (a + b) * x / (a + 1.0);
  d = 1.0 / (std::abs(d) < tiny ? tiny : d);
  double h = d;
  for (int m = 1; m <= 300; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double change = 1.0;
    for (const double term : {even, odd}) {
      d = 1.0 + term * d, c = 1.0 + term / c;
      d = 1.0 / (std::abs(d) < tiny ? tiny : d);
      if (std::abs(c) < tiny) c = tiny;
      change = d * c;
      h *= change;
    }
    if (std::abs(change - 1.0) < 1e-15) break;
  }
  return h;
}

double incomplete_beta(double x, double a, double b) {
  if (x <= 0.0) return 0.0;
  if (x >= 1.0) return 1.0;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1.0) / (a + b + 2.0) ? front * beta_fraction(x, a, b) / a
                                       : 1.0 - front * beta_fraction(1.0 - x, b, a) / b;
}

}  // namespace

double student_cdf(double t, double degrees) {
  if (std::isnan(t)) return kNan;
  if (std::isinf(t)) return t > 0 ? 1.0 : 0.0;
  const double tail = 0.5 * incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5);
  return t > 0.0 ? 1.0 - tail : tail;
}

double student_quantile(double p, double degrees) {
  double low = -1.0, high = 1.0;
  while (student_cdf(low, degrees) > p) low *= 2.0;
  while (student_cdf(high, degrees) < p) high *= 2.0;
  for (int i = 0; i < 200 && high - low > 1e-14 * std::abs(high); ++i) {
    const double middle = (low + high) / 2.0;
    (student_cdf(middle, degrees) < p ? low : high) = middle;
  }
  return (low + high) / 2.0;
}

Interval mean_interval(std::span<const double> values, double level) {
  Interval i;
  i.n = int(values.size());
  const Spread s = spread(values);
  i.mean = values.empty() ? kNan : s.mean, i.deviation = s.deviation;
  i.low = i.high = kNan;
  if (i.n < 2) return i;
  const double half = student_quantile((1.0 + level) / 2.0, i.n - 1) * i.deviation / std::sqrt(double(i.n));
  i.low = i.mean - half, i.high = i.mean + half;
  return i;
}

Interval bootstrap_interval(std::span<const double> values, double level, int draws) {
  Interval i = mean_interval(values, level);
  if (i.n < 2) return i;
  std::vector<double> means(static_cast<std::size_t>(draws));
  const Key k = key(0, "statistics", "bootstrap");
  for (std::size_t d = 0; d < means.size(); ++d) {
    double sum = 0.0;
    for (std::size_t j = 0; j < values.size(); ++j)
      sum += values[k.below(d * values.size() + j, std::uint32_t(values.size()))];
    means[d] = sum / double(values.size());
  }
  std::sort(means.begin(), means.end());
  const auto at = [&](double p) { return means[std::size_t(std::llround(p * double(means.size() - 1)))]; };
  i.low = at((1.0 - level) / 2.0), i.high = at((1.0 + level) / 2.0);
  return i;
}

PairedTest paired_test(std::span<const double> a, std::span<const double> b) {
  check(a.size() == b.size(), Kind::shape,
        [&] { return cat("a paired test needs pairs, not ", a.size(), " against ", b.size(), " values"); });
  std::vector<double> d;
  for (std::size_t i = 0; i < a.size(); ++i) d.push_back(a[i] - b[i]);
  PairedTest test;
  test.difference = mean_interval(d);
  const auto n = double(d.size());
  if (d.size() < 2) {
    test.p = test.p_exact = kNan;
    return test;
  }
  const double error = test.difference.deviation / std::sqrt(n);
  test.p = error > 0.0                   ? 2.0 * student_cdf(-std::abs(test.difference.mean) / error, n - 1.0)
           : test.difference.mean != 0.0 ? 0.0
                                         : 1.0;
  const double seen = std::abs(test.difference.mean) * n;
  const bool all = d.size() <= 16;
  const std::uint64_t flips = all ? std::uint64_t(1) << d.size() : std::uint64_t(1) << 16;
  const Key k = key(0, "statistics", "sign-flips");
  std::uint64_t extreme = 0;
  for (std::uint64_t f = 0; f < flips; ++f) {
    double sum = 0.0;
    for (std::size_t i = 0; i < d.size(); ++i) {
      const bool flip = all ? f >> i & 1 : k.bits(f * d.size() + i) >> 31;
      sum += flip ? -d[i] : d[i];
    }
    extreme += std::abs(sum) >= seen * (1.0 - 1e-12);
  }
  test.p_exact = double(extreme) / double(flips);
  return test;
}

}  // namespace eg
