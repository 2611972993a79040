// tests/apps/test_diagnosis.cpp - golden values of methods.md D.2 to D.7, and what each quantity must say about
// networks whose state is known.
#include "apps/diagnosis/diagnosis.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "apps/diagnosis/curvature.h"
#include "apps/diagnosis/robustness.h"
#include "apps/diagnosis/similarity.h"
#include "engine/rng.h"

using namespace eg;
using doctest::Approx;
using Values = std::vector<double>;

namespace {

Values softmax(Values s) {
  double total = 0.0;
  for (double& x : s) total += x = std::exp(x);
  for (double& x : s) x /= total;
  return s;
}

Values normals(std::size_t n, const char* name) {
  Values v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = key(1, "test", name).normal(i);
  return v;
}

UnitShares shares_of(const Values& z, std::int64_t units) {
  Values start(5 * std::size_t(units), 0.0);
  std::fill(start.begin() + 4 * units, start.end(), -1e30);
  const std::int64_t rows = std::int64_t(z.size()) / units;
  const Tensor counts = Tensor::from(start, {5, units}, DType::f64, kCpu);
  const Tensor t = Tensor::from(z, {rows, units}, DType::f32, kCpu);
  const auto row = [&](int i) { return counts.slice(i, 1).reshape({units}).view(); };
  EVERGRAD_CALL(kCpu, unit_statistics,
                UnitStatistics{.z = t.view(),
                               .positive = row(0),
                               .alive_magnitude = row(1),
                               .alive_gradient = row(2),
                               .sum_abs = row(3),
                               .max_value = row(4)});
  return UnitShares::of(counts.to_host(), double(rows));
}

}  // namespace

TEST_CASE("diagnosis: entropy and divergence of attention give their golden values") {
  const Values logits = {2, 1, 0, -1}, uniform(4, 0.25), certain = {0, 1, 0, 0};
  CHECK(normalised_entropy_of_logits(logits) == Approx(.683503439).epsilon(1e-9));
  CHECK(normalised_entropy(softmax(logits)) == Approx(.947536964 / std::log(4.0)).epsilon(1e-9));
  CHECK(normalised_entropy_of_logits(Values{-1, 0, 1, 2}) ==
        Approx(.683503439).epsilon(1e-9));  // the maximum comes last
  CHECK(normalised_entropy_of_logits(Values{700, 0, -700}) == Approx(0.0).epsilon(1e-12));
  CHECK(normalised_entropy(uniform) == Approx(1.0));
  CHECK(normalised_entropy(certain) == 0.0);
  CHECK(jensen_shannon(softmax(logits), uniform) == Approx(.113339721).epsilon(1e-8));
  CHECK(jensen_shannon(certain, Values{1, 0, 0, 0}) == Approx(std::log(2.0)).epsilon(1e-12));
  CHECK(jensen_shannon(uniform, uniform) == 0.0);
}

TEST_CASE("diagnosis: maps are the softmax of scaled products, and heads that look alike are similar") {
  const std::int64_t images = 2, tokens = 5, heads = 2, width = 3, dim = heads * width;
  Values qkv = normals(std::size_t(images * tokens * 3 * dim), "qkv");
  const AttentionMaps maps = attention_maps(qkv, images, tokens, heads);
  const auto q = [&](int image, int token, int head) {
    return &qkv[std::size_t((image * tokens + token) * 3 * dim + head * width)];
  };
  Values expected;
  for (int k = 0; k < tokens; ++k) {
    double dot = 0.0;
    for (int d = 0; d < width; ++d) dot += q(1, 2, 1)[d] * (q(1, k, 1) + dim)[d];
    expected.push_back(dot / std::sqrt(double(width)));
  }
  expected = softmax(expected);
  for (std::size_t k = 0; k < std::size_t(tokens); ++k)
    CHECK(maps.map(1, 1)[2 * std::size_t(tokens) + k] == Approx(expected[k]).epsilon(1e-12));
  const HeadStatistics s = head_statistics(maps, 1);
  CHECK(s.entropy[0] > 0.0);
  CHECK(s.entropy[0] < 1.0);
  CHECK(std::abs(s.similarity) < 0.9);
  for (const double d : attention_drift(maps, maps.p)) CHECK(d == 0.0);

  for (std::size_t row = 0; row < std::size_t(images * tokens); ++row)  // head 1 becomes a copy of head 0
    for (std::size_t part = 0; part < 3; ++part)
      for (std::size_t d = 0; d < std::size_t(width); ++d)
        qkv[row * 3 * std::size_t(dim) + part * std::size_t(dim) + std::size_t(width) + d] =
            qkv[row * 3 * std::size_t(dim) + part * std::size_t(dim) + d];
  CHECK(head_statistics(attention_maps(qkv, images, tokens, heads), 1).similarity == Approx(1.0).epsilon(1e-12));

  // Uniform attention over a 2 x 2 grid: distances 0, 1, 1, sqrt 2 from every corner; a fifth for each of five tokens.
  const HeadStatistics even = head_statistics(attention_maps(Values(qkv.size(), 0.0), images, tokens, heads), 1);
  CHECK(even.distance[0] == Approx((2.0 + std::sqrt(2.0)) / 4.0));
  CHECK(even.class_self[1] == Approx(0.2));
  CHECK(even.entropy[1] == Approx(1.0));
  CHECK_THROWS_AS(attention_maps(Values(7, 0.0), 1, 2, 1), Error);
}

TEST_CASE("diagnosis: CKA gives its golden values; only the unbiased one calls independent features unlike") {
  const Values x = {1, 0, 0, 1, 1, 1, 2, -1, 0, 3}, y = {1, 2, 0, 1, -1};
  CHECK(cka_biased(x, y, 5) == Approx(.345383787).epsilon(1e-8));
  CHECK(cka(x, y, 5) == Approx(-.103378058).epsilon(1e-7));
  CHECK(cka(x, x, 5) == Approx(1.0).epsilon(1e-12));
  Values scaled = x;
  for (double& v : scaled) v *= -3.0;
  CHECK(cka(x, scaled, 5) == Approx(1.0).epsilon(1e-12));
  const Values a = normals(32 * 256, "a"), b = normals(32 * 256, "b");
  CHECK(cka_biased(a, b, 32) > 0.8);
  CHECK(std::abs(cka(a, b, 32)) < 0.1);
  CHECK_THROWS_AS(cka(Values(3, 1.0), Values(3, 1.0), 3), Error);
}

TEST_CASE("diagnosis: a window of equal gradients has one direction, one of orthogonal gradients has all") {
  const WindowStatistics equal = window_statistics(Values(16, 4.0), 4);
  CHECK(equal.norm == 2.0);
  CHECK(equal.cosine == Approx(1.0));
  CHECK(equal.diversity == Approx(0.25));
  CHECK(equal.effective_rank == Approx(1.0).epsilon(1e-6));
  CHECK(equal.top_share == Approx(1.0));
  CHECK(equal.noise_ratio == Approx(0.0));
  Values gram(16, 0.0);
  for (std::size_t i = 0; i < 4; ++i) gram[5 * i] = 9.0;
  const WindowStatistics spread = window_statistics(gram, 4);
  CHECK(spread.cosine == 0.0);
  CHECK(spread.diversity == Approx(1.0));
  CHECK(spread.effective_rank == Approx(4.0));
  CHECK(spread.top_share == Approx(0.25));
  CHECK(std::isnan(spread.noise_ratio));  // no common part is left once the noise is taken out
  CHECK(window_statistics({}, 0).norm == 0.0);
}

TEST_CASE("diagnosis: a count sketch keeps inner products to its resolution") {
  const std::size_t n = 50000;
  const Values a = normals(n, "sketch a"), noise = normals(n, "sketch b");
  Values b(n), sa(kSketchSize, 0.0), sb(kSketchSize, 0.0);
  for (std::size_t i = 0; i < n; ++i) b[i] = 0.6 * a[i] + 0.8 * noise[i];
  count_sketch(a, sa), count_sketch(b, sb);
  const auto cosine = [](const Values& x, const Values& y) {
    const auto dot = [](const Values& p, const Values& q) {
      return std::inner_product(p.begin(), p.end(), q.begin(), 0.0);
    };
    return dot(x, y) / std::sqrt(dot(x, x) * dot(y, y));
  };
  CHECK(std::abs(cosine(sa, sb) - cosine(a, b)) < 3.0 / std::sqrt(double(kSketchSize)));
}

TEST_CASE("diagnosis: the shares of units follow the published definitions for constant and normal pre-activations") {
  const UnitShares off = shares_of(Values(200, -5.0), 4), on = shares_of(Values(200, 1.0), 4);
  for (const double share : {off.positive, off.magnitude, off.gradient, off.alive, off.dormant}) CHECK(share == 0.0);
  CHECK(off.dead == 1.0);
  for (const double share : {on.positive, on.magnitude, on.gradient, on.alive}) CHECK(share == 1.0);
  CHECK(on.dead == 0.0);
  const std::size_t n = 1000000;
  const UnitShares normal = shares_of(normals(n, "hidden"), 10);
  const auto within = [&](double share, double expected) {
    CHECK(std::abs(share - expected) < 3.0 * std::sqrt(expected * (1.0 - expected) / double(n)));
  };
  within(normal.positive, 0.5), within(normal.magnitude, 0.980297);
  CHECK(normal.alive == 1.0);
  CHECK(normal.dormant == 0.0);
  // Mean-one scores: one unit near -3 among ten normal ones is dormant (methods.md B.2).
  Values mixed = normals(1000, "hidden");
  for (std::size_t row = 0; row < 100; ++row) mixed[row * 10 + 3] = -3.0;
  CHECK(shares_of(mixed, 10).dormant == Approx(0.1));
}

TEST_CASE("diagnosis: the top Hessian eigenvalue of a quadratic is found whatever the step") {
  const auto quadratic = [](const Values& diagonal) {
    return [diagonal](std::span<const double> x) {
      Values g;
      for (std::size_t i = 0; i < diagonal.size(); ++i) g.push_back(diagonal[i] * x[i]);
      return g;
    };
  };
  const Values x = {0.3, -1.0, 2.0};
  for (const double step : {1e-6, 1e-3, 1.0}) {
    const TopEigenvalue top = top_hessian_eigenvalue(quadratic({1, 2, 5}), x, 1, step, 1e-9, 200);
    CHECK(top.converged);
    CHECK(top.value == Approx(5.0).epsilon(1e-6));
  }
  CHECK(top_hessian_eigenvalue(quadratic({-7, 2, 5}), x, 1, 1e-3, 1e-9, 200, false).value ==
        Approx(-7.0).epsilon(1e-6));
  CHECK(top_hessian_eigenvalue(quadratic({-7, 2, 5}), x, 1, 1e-3, 1e-9, 400).value == Approx(5.0).epsilon(1e-6));
  CHECK_FALSE(top_hessian_eigenvalue(quadratic({1, 1.0001, 1.0002}), x, 1, 1e-3, 0.0, 3).converged);
}

TEST_CASE("diagnosis: noise, pruning and quantisation do what they say, and nothing at level zero") {
  const Values w = {0.5, -0.1, 0.3, -0.7, 0.0, 0.2};
  Values v = w;
  add_weight_noise(v, 0.0, 1, "x", 0);
  CHECK(v == w);
  add_weight_noise(v, 0.1, 1, "x", 0);
  CHECK(v != w);
  Values again = w;
  add_weight_noise(again, 0.1, 1, "x", 0);
  CHECK(again == v);
  v = w, prune_smallest(v, 0.5);
  CHECK(v == Values{0.5, 0.0, 0.3, -0.7, 0.0, 0.0});
  v = w, prune_smallest(v, 0.0);
  CHECK(v == w);
  v = {1.0, 0.4, -0.2, 2.0, 0.0, -1.0};
  quantise_rows(v, 2, 2);  // one level each side: step = the row's largest
  CHECK(v == Values{1.0, 0.0, 0.0, 2.0, 0.0, 0.0});
  CHECK(robust_area(Values{0, 1}, Values{0.9, 0.9}, 0.1) == Approx(1.0));
  CHECK(robust_area(Values{0, 0.5, 1}, Values{0.9, 0.5, 0.1}, 0.1) == Approx(0.5));
  CHECK(robust_area(Values{0, 1}, Values{0.1, 0.1}, 0.1) == 0.0);
}
