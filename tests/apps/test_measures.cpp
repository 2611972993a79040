// tests/apps/test_measures.cpp - golden values of methods.md C.3 and D.1.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "apps/continual/measures.h"
#include "apps/diagnosis/spectrum.h"
#include "engine/error.h"
#include "engine/rng.h"

using namespace eg;
using doctest::Approx;

TEST_CASE("measures: the three-task example gives the hand-computed summaries") {
  const ResultMatrix r = {{.9, .2, .1}, {.7, .8, .2}, {.6, .6, .7}};
  const std::vector<double> diagonal = {.9, .8, .7}, untrained = {.1, .1, .1};
  CHECK(average_accuracy(diagonal) == Approx(.8).epsilon(1e-12));
  CHECK(average_seen(r, 2) == Approx(.6333333333).epsilon(1e-9));
  CHECK(average_incremental(r) == Approx(.7611111111).epsilon(1e-9));
  CHECK(backward_transfer(r) == Approx(-.25).epsilon(1e-12));
  CHECK(forgetting(r) == Approx(.25).epsilon(1e-12));
  CHECK(forward_transfer(r, untrained) == Approx(.10).epsilon(1e-12));
  CHECK(slope(diagonal) == Approx(-.1).epsilon(1e-12));
  CHECK(last_quarter_accuracy(diagonal) == Approx(.7));
  CHECK(last_quarter_accuracy(std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8}) == Approx(7.5));
}

TEST_CASE("measures: spread is the sample deviation, and zero for one value") {
  CHECK(spread(std::vector<double>{1, 2, 3, 4}).deviation == Approx(std::sqrt(5.0 / 3.0)));
  CHECK(spread(std::vector<double>{5}).deviation == 0.0);
}

TEST_CASE("spectrum: the rank family gives its golden values") {
  struct Row {
    std::vector<double> s;
    double erank, stable, participation;
    int srank01;
  };
  std::vector<double> halves;
  for (int i = 0; i < 10; ++i) halves.push_back(std::ldexp(1.0, -i));
  for (const Row& row : std::vector<Row>{{{1, 1, 1, 1}, 4, 4, 4, 4},
                                         {{1, 0, 0, 0}, 1, 1, 1, 1},
                                         {{4, 2, 1, 1}, 3.363585662, 1.375, 1.766423358, 4},
                                         {{10, 1, .1, .01}, 1.433590552, 1.010101, 1.020202, 2},
                                         {halves, 3.969109210, 1.333332, 1.666663, 7}}) {
    CHECK(effective_rank(row.s) == Approx(row.erank).epsilon(1e-8));
    CHECK(stable_rank(row.s) == Approx(row.stable).epsilon(1e-6));
    CHECK(participation_ratio(row.s) == Approx(row.participation).epsilon(1e-6));
    CHECK(srank(row.s) == row.srank01);
  }
  CHECK(energy_rank(std::vector<double>{10, 1, .1, .01}) == 1);
  CHECK(energy_rank(halves) == 4);
  CHECK(effective_rank(std::vector<double>{0, 0}) == 0.0);
}

TEST_CASE("spectrum: eigenvalues of a known matrix, of a rotation-invariant sum, and of a defective input") {
  // The second-difference matrix has eigenvalues 2 - 2 cos(pi k / (n + 1)).
  const int n = 33;
  std::vector<double> a(n * n, 0.0);
  for (int i = 0; i < n; ++i) {
    a[std::size_t(i * n + i)] = 2;
    if (i) a[std::size_t(i * n + i - 1)] = a[std::size_t((i - 1) * n + i)] = -1;
  }
  const auto values = symmetric_eigenvalues(a, n);
  for (int k = 1; k <= n; ++k)
    CHECK(values[std::size_t(n - k)] == Approx(2 - 2 * std::cos(M_PI * k / (n + 1))).epsilon(1e-12));

  // A dense symmetric matrix keeps trace and Frobenius norm.
  const Key k = key(1, "test", "spectrum");
  std::vector<double> b(40 * 40);
  double trace = 0, square = 0;
  for (int i = 0; i < 40; ++i)
    for (int j = 0; j <= i; ++j)
      b[std::size_t(i * 40 + j)] = b[std::size_t(j * 40 + i)] = k.normal(std::uint64_t(i * 40 + j));
  for (int i = 0; i < 40; ++i) trace += b[std::size_t(i * 41)];
  for (const double x : b) square += x * x;
  double sum = 0, sum_sq = 0;
  for (const double x : symmetric_eigenvalues(b, 40)) sum += x, sum_sq += x * x;
  CHECK(sum == Approx(trace).epsilon(1e-10));
  CHECK(sum_sq == Approx(square).epsilon(1e-10));

  std::vector<double> bad = {1, NAN, NAN, 1};
  CHECK_THROWS_AS(symmetric_eigenvalues(bad, 2), Error);
}

TEST_CASE("spectrum: singular values do not depend on orientation, and zero rows change nothing") {
  const std::vector<double> m = {3, 0, 0, 4, 0, 0}, t = {3, 4, 0, 0, 0, 0};  // 3 x 2 and 2 x 3
  CHECK(singular_values(m, 3, 2)[0] == Approx(4));
  CHECK(singular_values(m, 3, 2)[1] == Approx(3));
  CHECK(singular_values(t, 2, 3)[0] == Approx(5));
  CHECK(effective_rank(singular_values(m, 3, 2)) == Approx(effective_rank(std::vector<double>{4, 3})));
}
