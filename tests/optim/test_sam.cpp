// tests/optim/test_sam.cpp - sharpness-aware minimisation: golden values and invariants of methods.md A.6.
#include <cmath>
#include <limits>

#include "tests/optim/rig.h"

namespace eg::test {
namespace {

/// Gradients of the losses a_i x_i^2 / 2 summed over all weights; a of parameter p begins at curvature[p].
struct Bowl {
  std::vector<Values> curvature;
  std::vector<Values> at(const std::vector<Values>& x) const {
    std::vector<Values> g = x;
    for (std::size_t p = 0; p < x.size(); ++p)
      for (std::size_t i = 0; i < x[p].size(); ++i) g[p][i] *= curvature[p][i];
    return g;
  }
  void step(Rig& rig) const {
    rig.slope = [this](const std::vector<Values>& x) { return at(x); };
    std::vector<Values> x;
    for (std::size_t p = 0; p < rig.list.size(); ++p) x.push_back(rig.weights(p));
    rig.step(at(x));
  }
};

Piece head(Values start) {
  return {.start = std::move(start), .name = "head.weight", .module = Module::head, .block = -1};
}

}  // namespace

TEST_CASE("sam: on a x^2 / 2 from x = 1 gradient descent goes to 1 - lr a (1 + rho)") {
  for (const Device d : kBoth)
    for (const double a : {0.5, 2.0}) {
      Rig rig(d, "sgd:momentum=0+sam:rho=0.25", {{{1.0}}}, 0.1);
      Bowl{{{a}}}.step(rig);
      check_close(rig.weights(), {1.0 - 0.1 * a * 1.25}, d);
    }
}

TEST_CASE("sam: the step uphill has length rho along the gradient, over all parameters at once") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0+sam:rho=0.5", {{{3.0, 0.0}}, head({4.0})}, 0.1);
    std::vector<Values> seen;
    rig.slope = [&](const std::vector<Values>& x) { return seen = x; };
    rig.step({{3.0, 0.0}, {4.0}});  // of norm 5
    check_close(seen[0], {3.0 + 0.5 * 3.0 / 5.0, 0.0}, d, 4.0);
    check_close(seen[1], {4.0 + 0.5 * 4.0 / 5.0}, d, 5.0);
    // The base steps from the weights themselves, with the gradient that was found uphill.
    check_close(rig.weights(0), {3.0 - 0.1 * 3.3, 0.0}, d, 4.0);
    check_close(rig.weights(1), {4.0 - 0.1 * 4.4}, d, 5.0);
  }
}

TEST_CASE("sam: what is frozen, and the head where it is excepted, is not moved and does not lengthen the norm") {
  for (const Device d : kBoth) {
    Piece frozen{.start = {7.0}, .name = "blocks.0.attn.qkv.weight", .module = Module::qkv};
    frozen.frozen = true;
    Rig rig(d, "sgd:momentum=0+sam:rho=0.5:head=false", {{{3.0}}, frozen, head({4.0})}, 0.1);
    std::vector<Values> seen;
    rig.slope = [&](const std::vector<Values>& x) {
      seen = x;
      return std::vector<Values>{{0.0}, {0.0}, {0.0}};
    };
    rig.step(std::vector<Values>{{-3.0}, {100.0}, {4.0}});
    check_close(seen[0], {2.5}, d, 3.0);
    CHECK(seen[1] == Values{7.0});
    CHECK(seen[2] == Values{4.0});
    CHECK(rig.weights(1) == Values{7.0});
  }
}

TEST_CASE("sam: the adaptive form does not see a change of scale between weights and gradient") {
  for (const Device d : kBoth)
    for (const double s : {0.25, 8.0}) {
      const Values w{0.5, -1.5, 2.0, 0.0}, g{1.0, -0.25, 0.125, 3.0};
      const auto uphill = [&](double scale) {
        Values from = w, slope = g, moved;
        for (double& x : from) x *= scale;
        for (double& x : slope) x /= scale;
        Rig rig(d, "sgd:momentum=0+sam:adaptive:rho=0.5", {{from}}, 0.1);
        rig.slope = [&](const std::vector<Values>& x) {
          moved = x[0];
          return x;
        };
        rig.step(slope);
        for (double& x : moved) x /= scale;
        return moved;
      };
      CHECK(uphill(s) == uphill(1.0));  // powers of two round nothing
      double length = 0.0;
      for (std::size_t i = 0; i < 4; ++i) length += w[i] * g[i] * w[i] * g[i];
      const Values moved = uphill(1.0);
      for (std::size_t i = 0; i < 4; ++i)
        CHECK(moved[i] == doctest::Approx(w[i] + 0.5 * w[i] * w[i] * g[i] / std::sqrt(length)).epsilon(1e-6));
    }
}

TEST_CASE("sam: rho = 0 is the base, bit for bit, with one pass") {
  const Bowl bowl{{{0.3, 1.0, 2.5}}};
  for (const Device d : kBoth)
    for (const char* none : {"sam:rho=0", "sam:rho=0:adaptive"}) {
      Rig with(d, std::string("adamw+") + none, {{{0.7, -0.2, -0.9}}}), without(d, "adamw", {{{0.7, -0.2, -0.9}}});
      CHECK_FALSE(with.optimizer->ascends());
      for (int i = 0; i < 6; ++i) bowl.step(with), bowl.step(without);
      CHECK(with.bits() == without.bits());
    }
}

TEST_CASE("sam: the gradient is clipped where it is used, and penalties and ARROW see the second one alone") {
  for (const Device d : kBoth) {
    Rig clipped(d, "sgd:momentum=0+sam:rho=1", {{{1.0}}}, 0.1, 0.0, 0.5);
    Bowl{{{2.0}}}.step(clipped);  // g1 = 2, g2 = 4, clipped to 0.5
    check_close(clipped.weights(), {0.95}, d);

    Rig penalised(d, "sgd:momentum=0+sam:rho=1+l2:strength=0.5", {{{2.0}}}, 0.1);
    penalised.slope = [](const std::vector<Values>&) { return std::vector<Values>{{0.0}}; };
    penalised.step(Values{3.0});  // the penalty's slope is that at 2, not at 3
    check_close(penalised.weights(), {2.0 - 0.1 * 0.5 * 2.0}, d, 2.0);

    const std::string arrow = "arrow:window=3:base=sgd:warmup=none";
    Rig a(d, arrow + "+sam:rho=1", {{{2.0, -4.0}}}, 0.1), b(d, arrow, {{{2.0, -4.0}}}, 0.1);
    a.slope = [](const std::vector<Values>&) { return std::vector<Values>{{1.0, 2.0}}; };
    for (int i = 0; i < 4; ++i) a.step(Values{5.0, -7.0}), b.step(Values{1.0, 2.0});
    CHECK(a.bits() == b.bits());
  }
}

TEST_CASE("sam: where the first gradient is not finite every weight uphill is NaN, so that the step is skipped") {
  for (const Device d : kBoth)
    for (const double bad : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
      Rig rig(d, "adamw+sam", {{{1.0, 2.0}}, head({3.0})});
      rig.slope = [](const std::vector<Values>& x) { return x; };
      rig.step({{0.5, bad}, {1.0}});
      CHECK(rig.record.finite == 0);
      CHECK(rig.record.skipped == 1);
      CHECK(rig.weights(0) == Values{1.0, 2.0});
      CHECK(rig.weights(1) == Values{3.0});
    }
}

TEST_CASE("sam: goes with TRAC, which reads the second gradient; mistakes are named") {
  Rig rig(kCpu, "sgd+trac+sam", {{{1.0, 2.0}}});
  CHECK(rig.optimizer->ascends());
  const auto made = [](const std::string& method) { return usage_error([&] { Rig(kCpu, method, {{{1.0}}}); }); };
  CHECK(contains(made("sam:rho=-1"), "rho"));
  CHECK(contains(made("sam:roh=1"), "it has"));
  CHECK(contains(made("sam+sam"), "twice"));
}

}  // namespace eg::test
