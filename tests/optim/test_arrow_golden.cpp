// tests/optim/test_arrow_golden.cpp - ARROW's closed cases and golden values (methods.md A.3.3, A.3.5, A.3.6), on both
// devices. Every rig uses lr 1 and weights that start at zero, so that what a step takes away is the direction u.
#include <cmath>

#include "tests/optim/dense.h"

using namespace eg;
using namespace eg::test;

namespace {

const std::vector<Values> kColumns = {{1, 0}, {1, 1}, {2, -1}};

/// u of the last of `columns`, pushed one after the other.
Values last_step(Device d, const std::string& options, const std::vector<Values>& columns, double scale = 1.0) {
  Rig rig(d, literal(options), {{.start = Values(columns[0].size(), 0.0)}}, 1.0);
  Values u;
  for (const Values& g : columns) u = rig.direction(scaled(g, scale));
  return u;
}

}  // namespace

TEST_CASE("arrow: the golden example, its coefficients and its free diagnostics") {
  for (const Device d : kBoth) {
    Rig rig(d, literal("alpha=0.5:beta=1:window=3"), {{.start = {0, 0}}}, 1.0);
    rig.step(kColumns[0]), rig.step(kColumns[1]);
    const Values u = rig.taken(kColumns[2]);
    check_close(u, {72.0 / 101, -66.0 / 101}, d, 4.0);
    const ArrowState s = rig.arrow();
    check_close({s.coefficient[0], s.coefficient[1], s.coefficient[2]}, {-0.475247525, -0.039603960, 0.613861386},
                kReference);
    CHECK(s.descent == doctest::Approx(3.0 * (1 - 0.5 * 0.613861386)).epsilon(1e-9));  // (D/beta)(1 - alpha c_s)
    CHECK(s.descent == doctest::Approx(dot(kColumns[2], {72.0 / 101, -66.0 / 101})).epsilon(1e-12));
    CHECK(s.norm_sq_update == doctest::Approx(0.935202431).epsilon(1e-9));
    const double csq =
        s.coefficient[0] * s.coefficient[0] + s.coefficient[1] * s.coefficient[1] + s.coefficient[2] * s.coefficient[2];
    CHECK(s.norm_sq_update == doctest::Approx(3.0 * (s.coefficient[2] - 0.5 * csq)).epsilon(1e-12));
    // For an older column k: g_k . u = -(D/beta) alpha c_k, the interference with what was learned before.
    CHECK(dot(kColumns[0], u) == doctest::Approx(-3.0 * 0.5 * s.coefficient[0]).epsilon(1e-6));
  }
}

TEST_CASE("arrow: more golden directions") {
  for (const Device d : kBoth) {
    check_close(last_step(d, "alpha=1:beta=2:window=4", kColumns), {14.0 / 31, -12.0 / 31}, d, 4.0);
    check_close(last_step(d, "alpha=0.5:beta=0:window=3", kColumns), {4, -2}, d, 4.0);
    check_close(last_step(d, "alpha=0.5:beta=2:window=1", {{3, 4}}), {0.0594059406, 0.0792079208}, d, 4.0);
    check_close(last_step(d, "alpha=0.5:beta=2:window=3", {{3, 4}, {3, 4}, {3, 4}}), {0.0594059406, 0.0792079208}, d,
                4.0);
    check_close(last_step(d, "alpha=0.5:beta=2:window=3", {{3, 4}, {-3, -4}, {3, 4}}), {0.0594059406, 0.0792079208}, d,
                4.0);
    check_close(last_step(d, "alpha=0.5:beta=2:window=2", {{0, 0, 5}, {3, 4, 0}}), {0.1176470588, 0.1568627451, 0}, d,
                4.0);
    // One coordinate per group: grouping matters.
    Rig rig(d, literal("alpha=0.5:beta=1:window=3:grouping=tensor"),
            {{.start = {0}}, {.start = {0}, .name = "blocks.0.attn.proj2.weight"}}, 1.0);
    rig.step(std::vector<Values>{{1}, {0}}), rig.step(std::vector<Values>{{1}, {1}});
    const Values w0 = rig.weights(0), w1 = rig.weights(1);
    rig.step(std::vector<Values>{{2}, {-1}});
    check_close({w0[0] - rig.weights(0)[0], w1[0] - rig.weights(1)[0]}, {0.8, -0.857142857}, d, 4.0);
  }
}

TEST_CASE("arrow: one history column equals the scalar formula, and a sign or an orthogonal past changes nothing") {
  for (const Device d : kBoth) {
    const Values g = {0.3, -0.7, 0.2};
    const double q = dot(g, g);
    // W = 1: g / (alpha + beta |g|^2)
    const double f1 = 1.0 / (0.25 + 2.0 * q);
    check_close(last_step(d, "alpha=0.25:beta=2:window=1", {g}), {0.3 * f1, -0.7 * f1, 0.2 * f1}, d, 4.0);
    // Orthogonal history of a window of 4: g / (alpha + (beta/4) |g|^2)
    const double f4 = 1.0 / (0.25 + 0.5 * q);
    check_close(last_step(d, "alpha=0.25:beta=2:window=4", {{0.7, 0.3, 0}, {0, 2, 7}, g}),
                {0.3 * f4, -0.7 * f4, 0.2 * f4}, d, 4.0);
    // P = 1: g / (alpha + (beta/W) sum g_i^2)
    check_close(last_step(d, "alpha=0.25:beta=2:window=4", {{1}, {-2}, {3}}), {3.0 / (0.25 + 0.5 * 14)}, d, 4.0);
  }
}

TEST_CASE(
    "arrow: scaling rate, alpha and beta together changes nothing; a divisor of filled columns changes what it says") {
  for (const Device d : kBoth) {
    Rig a(d, literal("alpha=0.5:beta=1:window=3"), {{.start = {0, 0}}}, 1.0);
    Rig b(d, "arrow:paper:warmup=none:base=sgd:arrow-lr=4:blocks=all:alpha=2:beta=4:window=3", {{.start = {0, 0}}},
          1.0);
    for (const Values& g : kColumns) a.step(g), b.step(g);
    check_close(a.weights(), b.weights(), d, 4.0);
    // With D = n the first step divides by 1, not by W.
    check_close(last_step(d, "alpha=0.5:beta=2:window=3:divisor=filled", {{3, 4}}), {3 / 50.5, 4 / 50.5}, d, 4.0);
    check_close(last_step(d, "alpha=0.5:beta=2:window=3", {{3, 4}}), {3 / (0.5 + 50.0 / 3), 4 / (0.5 + 50.0 / 3)}, d,
                4.0);
  }
}

TEST_CASE("arrow: every step descends and stays inside both bounds on its length") {
  for (const Device d : kBoth) {
    const double alpha = 0.3, beta = 5.0, window = 4.0;
    Rig rig(d, literal("alpha=0.3:beta=5:window=4"), {{.start = Values(7, 0.0)}}, 1.0);
    for (int i = 0; i < 20; ++i) {
      Values g(7);
      for (std::size_t k = 0; k < g.size(); ++k) g[k] = std::sin(double(i) * 1.7 + double(k) * k) * (1 + i % 3);
      const Values u = rig.taken(g);
      const double length = std::sqrt(dot(u, u)), norm = std::sqrt(dot(g, g)), slack = 1 + 1e-5;
      CHECK(dot(g, u) > 0.0);
      CHECK(length <= norm / alpha * slack);
      CHECK(length <= std::sqrt(window / (alpha * beta)) * slack);
      CHECK(length * length <= norm * norm / (alpha * (alpha + beta / window * norm * norm)) * slack);
    }
  }
}

TEST_CASE("arrow: with huge beta the step is orthogonal to every older gradient of the window") {
  const std::vector<Values> columns = {{1, 0, 0.5, 0}, {0, 2, 1, 0}, {1, 1, 0, 3}};
  for (const Device d : kBoth)
    for (const auto& [beta, options] :
         {std::pair{1e5, "alpha=1:beta=1e5:window=3"}, {1e9, "alpha=1:beta=1e9:window=3"}}) {
      const Values u = last_step(d, options, columns);
      // alpha D / (beta lambda) of K, whose eigenvalues are 1.0 and more, is what remains; and on cpu the rounding of
      // c_j g_j, where c is about D / beta.
      const double bound = 10.0 * 3.0 / beta + (d == kReference ? 0.0 : sum_error(3, 30.0));
      for (const std::size_t k : {0, 1, 2})
        CHECK(std::abs(beta * dot(columns[k], u) / 3.0 - (k == 2 ? 1.0 : 0.0)) <= bound);
    }
}

TEST_CASE("arrow: an eigendirection with eigenvalue lambda is divided by alpha + beta lambda, which is not whitening") {
  // The window's eigenvectors are the axes, with eigenvalues a^2/D; the probing gradient is too small to add to them.
  const double alpha = 0.5, beta = 2.0, divisor = 8.0, tiny = 1e-6;
  const Values lambda = {0.01, 0.0625, 0.25, 1.0, 4.0, 64.0};  // alpha / beta = 0.25
  const std::size_t n = lambda.size();
  for (const Device d : kBoth) {
    std::vector<Values> columns;
    for (std::size_t i = 0; i < n; ++i) {
      columns.emplace_back(n, 0.0);
      columns.back()[i] = std::sqrt(lambda[i] * divisor);
    }
    columns.emplace_back(n, tiny);
    const Values u = last_step(d, "alpha=0.5:beta=2:window=8", columns);
    Values moment;
    for (std::size_t i = 0; i < n; ++i) {
      const double factor = 1.0 / (alpha + beta * lambda[i]);
      check_close({u[i] / tiny}, {factor}, d, 4.0 / alpha);
      moment.push_back(lambda[i] * std::pow(u[i] / tiny, 2));  // of the update, where the gradient's is lambda
    }
    CHECK(moment[0] < moment[1]);
    CHECK(moment[1] < moment[2]);  // the peak stands at lambda = alpha / beta
    for (std::size_t i = 3; i < n; ++i) CHECK(moment[i] < moment[i - 1]);
    CHECK(moment[5] * beta * beta * lambda[5] == doctest::Approx(1.0).epsilon(0.01));  // falls like 1 / (beta^2 lambda)
  }
}

TEST_CASE("arrow: relative damping has its golden value and inverts a scale of the gradients") {
  for (const Device d : kBoth) {
    const char* options = "damping=relative:rho=0.1:beta=1:window=3:divisor=filled";
    check_close(last_step(d, options, kColumns), {0.802760013, -0.969370582}, d, 8.0);
    check_close(last_step(d, options, kColumns, 10.0), {0.0802760013, -0.0969370582}, d, 8.0);
    Rig rig(d, literal(options), {{.start = {0, 0}}}, 1.0);
    for (const Values& g : kColumns) rig.step(g);
    CHECK(rig.arrow().alpha == doctest::Approx(0.1 * 8 / 9).epsilon(1e-12));
    for (const Values& g : kColumns) rig.step(scaled(g, 10.0));
    CHECK(rig.arrow().alpha == doctest::Approx(10.0 * 8 / 9).epsilon(1e-12));
    // r = P: the mean over all dimensions, P = 2 here. D stays 3.
    Rig all(d, literal(std::string(options) + ":relative-over=all"), {{.start = {0, 0}}}, 1.0);
    for (const Values& g : kColumns) all.step(g);
    CHECK(all.arrow().alpha == doctest::Approx(0.1 * 8 / 6).epsilon(1e-12));
  }
}

TEST_CASE("arrow: dimensionless damping follows the energy a direction holds") {
  for (const Device d : kBoth) {
    // kappa = 0 is SGD; n identical gradients are divided by 1 + kappa; n equal orthogonal ones by 1 + kappa / n.
    check_close(last_step(d, "damping=dimensionless:kappa=0:window=3", kColumns), {2, -1}, d, 4.0);
    check_close(last_step(d, "damping=dimensionless:kappa=3:window=4", {{2, 1}, {2, 1}}), {0.5, 0.25}, d, 4.0);
    check_close(last_step(d, "damping=dimensionless:kappa=3:window=4", {{2, 0, 0}, {0, 2, 0}, {0, 0, 2}}), {0, 0, 1}, d,
                4.0);
    // A direction that holds a share f of the window's energy is divided by 1 + kappa f: here 4/5, then 1/5.
    check_close(last_step(d, "damping=dimensionless:kappa=3:window=2", {{2, 0}, {0, 1}}), {0, 1 / 1.6}, d, 4.0);
    check_close(last_step(d, "damping=dimensionless:kappa=3:window=2", {{0, 1}, {2, 0}}), {2 / 3.4, 0}, d, 4.0);
    const Values small = last_step(d, "damping=dimensionless:kappa=3:window=3", kColumns),
                 large = last_step(d, "damping=dimensionless:kappa=3:window=3", kColumns, 8.0);
    check_close({large[0] / 8, large[1] / 8}, small, d, 4.0);
  }
}

TEST_CASE("arrow: old columns may come in any order, and what left the window is forgotten") {
  for (const Device d : kBoth) {
    const Values g = {2, -1, 0.5}, a = {1, 0, 3}, b = {-1, 2, 1}, c = {0.5, 0.5, -2};
    const char* options = "alpha=0.5:beta=1:window=4";
    check_close(last_step(d, options, {a, b, c, g}), last_step(d, options, {c, a, b, g}), d, 8.0);
    check_close(last_step(d, options, {{9, 9, 9}, {-7, 3, 1}, a, b, c, g}), last_step(d, options, {a, b, c, g}), d,
                8.0);
  }
}
