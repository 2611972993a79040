// tests/apps/test_diagnosis_circuits.cpp - head circuits, linear probes, preconditioned curvature: golden values and
// what must hold for any numbers.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "apps/diagnosis/circuits.h"
#include "apps/diagnosis/curvature.h"
#include "apps/diagnosis/linear_probe.h"
#include "apps/diagnosis/robustness.h"
#include "apps/diagnosis/spectrum.h"
#include "engine/error.h"
#include "engine/rng.h"

using namespace eg;
using doctest::Approx;
using Values = std::vector<double>;

namespace {

Values normals(std::size_t n, const char* name) {
  Values v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = key(1, "test", name).normal(i);
  return v;
}

/// a [m, k] times the transpose of b [n, k].
Values times_transposed(const Values& a, const Values& b, std::size_t m, std::size_t n, std::size_t k) {
  Values c(m * n, 0.0);
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t l = 0; l < k; ++l) c[i * n + j] += a[i * k + l] * b[j * k + l];
  return c;
}
Values transposed(const Values& a, std::size_t m, std::size_t n) {
  Values t(a.size());
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t j = 0; j < n; ++j) t[j * m + i] = a[i * n + j];
  return t;
}
Values gram_of_columns(const Values& a, std::size_t m, std::size_t n) {
  const Values t = transposed(a, m, n);
  return times_transposed(t, t, n, n, m);
}

}  // namespace

TEST_CASE("circuits: singular values of a product come out of its two small Gram matrices") {
  // diag(3, 2) diag(1, 4)^T: 8 and 3.
  const Values s = product_singular_values(Values{9, 0, 0, 4}, Values{1, 0, 0, 16}, 2);
  CHECK(s[0] == Approx(8.0).epsilon(1e-14));
  CHECK(s[1] == Approx(3.0).epsilon(1e-14));
  const std::size_t d = 17, n = 5;
  const Values a = normals(d * n, "a"), b = normals(d * n, "b");
  const Values direct = singular_values(times_transposed(a, b, d, d, n), 17, 17);
  const Values small = product_singular_values(gram_of_columns(a, d, n), gram_of_columns(b, d, n), int(n));
  for (std::size_t i = 0; i < n; ++i) CHECK(small[i] == Approx(direct[i]).epsilon(1e-9));
  // A Gram matrix of rank 2 bounds the product's.
  Values flat = a;
  for (std::size_t row = 0; row < d; ++row)
    for (std::size_t c = 2; c < n; ++c) flat[row * n + c] = flat[row * n] - flat[row * n + 1];
  const Values poor = product_singular_values(gram_of_columns(flat, d, n), gram_of_columns(b, d, n), int(n));
  CHECK(poor[1] > 1e-3);
  CHECK(poor[2] < 1e-6 * poor[0]);
  for (const double x : product_singular_values(Values(25, 0.0), gram_of_columns(b, d, n), int(n))) CHECK(x == 0.0);
  CHECK_THROWS_AS(product_singular_values(Values(4, 1.0), Values(9, 1.0), 2), Error);
}

TEST_CASE("circuits: every head's ranks are those of the large products, and at most its width") {
  const std::size_t d = 12, heads = 3, width = 4;
  const Values q = normals(d * d, "q"), k = normals(d * d, "k"), v = normals(d * d, "v"), out = normals(d * d, "o");
  const CircuitRanks ranks = head_circuits(q, k, v, out, std::int64_t(d), std::int64_t(heads));
  REQUIRE(ranks.qk.size() == heads);
  for (std::size_t h = 0; h < heads; ++h) {
    const auto rows = [&](const Values& m) {
      return Values(m.begin() + std::ptrdiff_t(h * width * d), m.begin() + std::ptrdiff_t((h + 1) * width * d));
    };
    Values columns;
    for (std::size_t r = 0; r < d; ++r)
      for (std::size_t c = 0; c < width; ++c) columns.push_back(out[r * d + h * width + c]);
    const Values qt = transposed(rows(q), width, d), kt = transposed(rows(k), width, d);
    const Values vt = transposed(rows(v), width, d);
    const auto rank = [&](const Values& a, const Values& b) {
      Values s = singular_values(times_transposed(a, b, d, d, width), 12, 12);
      s.resize(width);  // the others are rounding
      return effective_rank(s);
    };
    CHECK(ranks.qk[h] == Approx(rank(qt, kt)).epsilon(1e-9));
    CHECK(ranks.ov[h] == Approx(rank(columns, vt)).epsilon(1e-9));
    CHECK(ranks.qk[h] <= double(width));
    CHECK(ranks.ov[h] >= 1.0);
  }
  CHECK_THROWS_AS(head_circuits(q, k, v, out, 12, 5), Error);
}

TEST_CASE("linear probe: two points give the line between them") {
  // One feature, classes at -1 and +1: any positive strength puts the boundary at 0.
  const LabelledFeatures train{{-1, 1}, {0, 1}}, test{{-0.1, 0.1, 5, -7}, {0, 1, 1, 0}};
  CHECK(ridge_accuracy(train, test, 1, 2) == 1.0);
  CHECK(ridge_accuracy(train, {{-0.1, 0.1}, {1, 0}}, 1, 2) == 0.0);
  // Features that are all alike leave the most frequent class.
  CHECK(ridge_accuracy({{2, 2, 2}, {1, 1, 0}}, {{9, 9, 9, 9}, {1, 1, 0, 1}}, 1, 2) == 0.75);
  CHECK_THROWS_AS(ridge_accuracy({{1}, {2}}, test, 1, 2), Error);
  CHECK_THROWS_AS(ridge_accuracy({{}, {}}, test, 1, 2), Error);
  CHECK_THROWS_AS(ridge_accuracy(train, {{std::nan("")}, {0}}, 1, 2), Error);
  CHECK_THROWS_AS(ridge_accuracy(train, {{1, 2, 3}, {0}}, 2, 2), Error);
}

TEST_CASE("linear probe: separable classes are found whatever rotates, scales or shifts them; noise stays at chance") {
  const std::size_t n = 120, d = 6;
  const auto blobs = [&](const char* name, double apart) {
    LabelledFeatures f;
    f.x = normals(n * d, name);
    for (std::size_t i = 0; i < n; ++i) {
      f.labels.push_back(std::int32_t(i % 3));
      f.x[i * d + i % 3] += apart;
    }
    return f;
  };
  const LabelledFeatures train = blobs("train", 12), test = blobs("test", 12);
  CHECK(ridge_accuracy(train, test, std::int64_t(d), 3) == 1.0);
  const auto moved = [&](LabelledFeatures f) {
    for (std::size_t i = 0; i < n; ++i) {
      const double x = f.x[i * d], y = f.x[i * d + 1];
      f.x[i * d] = 0.6 * x - 0.8 * y, f.x[i * d + 1] = 0.8 * x + 0.6 * y;
      for (std::size_t c = 0; c < d; ++c) f.x[i * d + c] = 1e-3 * f.x[i * d + c] + 50.0;
    }
    return f;
  };
  CHECK(ridge_accuracy(moved(train), moved(test), std::int64_t(d), 3) == 1.0);
  const LabelledFeatures even_train = blobs("train", 1.5), even_test = blobs("test", 1.5);
  CHECK(ridge_accuracy(moved(even_train), moved(even_test), std::int64_t(d), 3) ==
        Approx(ridge_accuracy(even_train, even_test, std::int64_t(d), 3)).epsilon(1e-12));
  // 120 draws at chance 1/3 stay below 0.55 with probability above 1 - 1e-6.
  CHECK(ridge_accuracy(blobs("a", 0), blobs("b", 0), std::int64_t(d), 3) < 0.55);
}

TEST_CASE("ranks: the numerical rank counts what rounding in the given precision cannot make") {
  const Values s = {1.0, 1e-3, 3e-6, 1e-7, 0.0};
  CHECK(numerical_rank(s, 5, 8) == 3);           // 8 x 1.2e-7 = 9.5e-7
  CHECK(numerical_rank(s, 5, 8, 0x1p-52) == 4);  // double
  CHECK(numerical_rank(Values{7, 7, 7}, 3, 3) == 3);
  CHECK(numerical_rank(Values{0, 0}, 2, 2) == 0);
  CHECK(numerical_rank(Values{}, 2, 2) == 0);
}

TEST_CASE("curvature: the trace of a quadratic is exact where it is diagonal, and close where it is not") {
  const Values x = {0.3, -0.2, 0.1};
  const auto diagonal = [](std::span<const double> at) { return Values{at[0], 2 * at[1], 5 * at[2]}; };
  CHECK(hessian_trace(diagonal, x, 1, 1) == Approx(8.0).epsilon(1e-9));
  // Off the diagonal a sign vector adds 2 a s_i s_j, of mean 0 and deviation 2 |a|: 0.2 here, 0.0125 over 256 vectors.
  const auto mixed = [](std::span<const double> at) {
    return Values{at[0] + 0.1 * at[1], 0.1 * at[0] + 2 * at[1], 5 * at[2]};
  };
  CHECK(std::abs(hessian_trace(mixed, x, 1, 256) - 8.0) < 4 * 0.0125);
  CHECK_THROWS_AS(hessian_trace(diagonal, x, 1, 0), Error);
}

TEST_CASE("robustness: the level that leaves nine tenths lies on the line between two levels") {
  const Values levels = {0.0, 0.1, 0.2, 0.4};
  // Chance 0.2: relative accuracies 1, 0.95, 0.85, 0.
  CHECK(robust_level(levels, Values{0.6, 0.58, 0.54, 0.2}, 0.2) == Approx(0.15));
  CHECK(robust_level(levels, Values{0.6, 0.6, 0.6, 0.6}, 0.2) == 0.4);
  CHECK(robust_level(Values{16, 8, 4}, Values{0.6, 0.6, 0.2}, 0.2) == Approx(7.6));  // bits fall
  CHECK(std::isnan(robust_level(levels, Values{0.2, 0.2, 0.2, 0.2}, 0.2)));
}

TEST_CASE("curvature: a preconditioner rescales the Hessian's coordinates") {
  // f = (x^2 + 2 y^2 + 5 z^2) / 2 with D = (4, 1, 0.5): D^-1/2 H D^-1/2 = diag(0.25, 2, 10).
  const Values h = {1, 2, 5}, d = {4, 1, 0.5}, x = {0.3, -0.2, 0.1};
  const auto gradient = [&](std::span<const double> at) {
    Values g(3);
    for (std::size_t i = 0; i < 3; ++i) g[i] = h[i] * at[i];
    return g;
  };
  const TopEigenvalue top = top_preconditioned_eigenvalue(gradient, x, d, 1, 1e-3, 1e-6, 200);
  CHECK(top.converged);
  CHECK(top.value == Approx(10.0).epsilon(1e-4));
  CHECK(top_preconditioned_eigenvalue(gradient, x, Values{1, 1, 1}, 1, 1e-3, 1e-6, 200).value ==
        Approx(5.0).epsilon(1e-4));
  CHECK_THROWS_AS(top_preconditioned_eigenvalue(gradient, x, Values{1, 1}, 1), Error);
  CHECK_THROWS_AS(top_preconditioned_eigenvalue(gradient, x, Values{1, 0, 1}, 1), Error);
}
