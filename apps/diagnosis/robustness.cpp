// apps/diagnosis/robustness.cpp - see robustness.h.
#include "apps/diagnosis/robustness.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/error.h"
#include "engine/rng.h"

namespace eg {

void add_weight_noise(std::span<double> w, double strength, std::uint64_t seed, const std::string& purpose,
                      std::uint32_t draw) {
  if (strength == 0.0 || w.empty()) return;
  double squares = 0.0;
  for (const double x : w) squares += x * x;
  const double scale = strength * std::sqrt(squares / double(w.size()));
  const Key random = key(seed, "diagnosis", purpose, draw);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] += scale * random.normal(i);
}

void prune_smallest(std::span<double> w, double share) {
  const auto count = std::min(w.size(), static_cast<std::size_t>(std::llround(share * double(w.size()))));
  std::vector<std::size_t> order(w.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return std::abs(w[a]) < std::abs(w[b]); });
  for (std::size_t i = 0; i < count; ++i) w[order[i]] = 0.0;
}

void quantise_rows(std::span<double> w, std::int64_t rows, int bits) {
  check(bits >= 2 && bits <= 32, Kind::usage, [&] { return cat("quantise_rows: ", bits, " bits; 2 to 32 exist"); });
  const std::size_t cols = w.size() / std::size_t(rows);
  const double levels = std::ldexp(1.0, bits - 1) - 1.0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto row = w.subspan(std::size_t(r) * cols, cols);
    double largest = 0.0;
    for (const double x : row) largest = std::max(largest, std::abs(x));
    if (largest == 0.0) continue;
    const double step = largest / levels;
    for (double& x : row) x = step * std::nearbyint(x / step);
  }
}

double robust_area(std::span<const double> levels, std::span<const double> accuracy, double chance) {
  const double whole = accuracy.empty() ? 0.0 : accuracy[0] - chance;
  if (levels.size() < 2 || whole <= 0.0) return 0.0;
  const auto relative = [&](std::size_t i) { return std::clamp((accuracy[i] - chance) / whole, 0.0, 1.0); };
  double area = 0.0;
  for (std::size_t i = 1; i < levels.size(); ++i)
    area += std::abs(levels[i] - levels[i - 1]) * (relative(i) + relative(i - 1)) / 2;
  return area / std::abs(levels[levels.size() - 1] - levels[0]);
}

double robust_level(std::span<const double> levels, std::span<const double> accuracy, double chance, double share) {
  const double whole = accuracy.empty() ? 0.0 : accuracy[0] - chance;
  if (whole <= 0.0) return std::numeric_limits<double>::quiet_NaN();
  const auto relative = [&](std::size_t i) { return (accuracy[i] - chance) / whole; };
  for (std::size_t i = 1; i < levels.size(); ++i) {
    if (relative(i) > share) continue;
    const double along = (relative(i - 1) - share) / (relative(i - 1) - relative(i));
    return levels[i - 1] + along * (levels[i] - levels[i - 1]);
  }
  return levels[levels.size() - 1];
}

}  // namespace eg
