// layers/init.cpp - initial values, drawn in parallel from counters.
#include "layers/init.h"

#include <cmath>

#include "engine/parallel.h"

namespace eg {
namespace {

constexpr double kCut = 2.0;  // trunc_normal keeps [-2, 2], whatever the standard deviation is
constexpr std::int64_t kGrain = 1 << 14;

/// The first draw inside the cut among those of (i, attempt 0), (i, attempt 1) ...: the truncated normal, exactly. At
/// std 0.02 the first one always is. A wide std ends too: one draw in |x| < 2 has at least 2/std x 0.24 chance.
double truncated(const Key& k, std::int64_t i, std::int64_t count, double std) {
  constexpr std::int64_t kAttempts = 1 << 20;
  for (std::int64_t attempt = 0; attempt < kAttempts; ++attempt) {
    const double x = std * k.normal(std::uint64_t(i + attempt * count));
    if (std::abs(x) <= kCut) return x;
  }
  fail(Kind::usage,
       cat("init: a truncated normal of std ", std, " finds no value within +-", kCut, "; use a smaller std"));
}

}  // namespace

Init init_patch_projection(std::int64_t fan_in) { return {Init::Rule::uniform, 1.0 / std::sqrt(double(fan_in))}; }

namespace {

void check_scale(const Init& init) {
  check(std::isfinite(init.scale), Kind::usage,
        [&] { return cat("init: the scale must be finite, got ", init.scale); });
  check(init.scale >= 0.0 || init.rule == Init::Rule::constant, Kind::usage,
        [&] { return cat("init: the scale of a random draw must not be negative, got ", init.scale); });
}

double value_at(const Init& init, std::int64_t i, std::int64_t count, const Key& key) {
  switch (init.rule) {
    case Init::Rule::zeros: return 0.0;
    case Init::Rule::ones: return 1.0;
    case Init::Rule::constant: return init.scale;
    case Init::Rule::normal: return init.scale * key.normal(std::uint64_t(i));
    case Init::Rule::trunc_normal: return truncated(key, i, count, init.scale);
    case Init::Rule::uniform: return init.scale * (2.0 * key.uniform(std::uint64_t(i)) - 1.0);
  }
  return 0.0;
}

}  // namespace

std::vector<double> draw(const Init& init, std::int64_t count, Key key) {
  check_scale(init);
  std::vector<double> values(static_cast<std::size_t>(count), 0.0);
  parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t i = begin; i < end; ++i) values[std::size_t(i)] = value_at(init, i, count, key);
  });
  return values;
}

std::vector<double> draw(const Init& init, std::int64_t count, Key key, std::span<const std::int64_t> which) {
  check_scale(init);
  std::vector<double> values;
  for (const std::int64_t i : which) values.push_back(value_at(init, i, count, key));
  return values;
}

}  // namespace eg
