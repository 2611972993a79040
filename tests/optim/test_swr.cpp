// tests/optim/test_swr.cpp - selective weight reinitialisation: the invariants of methods.md B.4.
#include <cmath>

#include "tests/optim/rig.h"

namespace eg::test {
namespace {

/// A tensor that begins anew with this constant.
Piece tensor(Values start, double anew = 7.0, const std::string& name = "first") {
  Piece p{std::move(start), name};
  p.init = {Init::Rule::constant, anew};
  return p;
}
/// Every step at rate zero: only the method moves weights.
Rig still(Device d, const std::string& options, const std::vector<Piece>& pieces) {
  return Rig(d, "sgd:momentum=0+swr:" + options, pieces, 0.0);
}
Values zeros(std::size_t n) { return Values(n, 0.0); }

}  // namespace

TEST_CASE("swr: what lies below the share of its own tensor's mean begins anew, in the steps that are asked for") {
  for (const Device d : kBoth) {
    Rig rig = still(d, "every=2:threshold=0.5:utility=magnitude",
                    {tensor({1.0, 0.25, -2.0, 0.75}), tensor({-64.0, 16.0, 128.0, 48.0}, 7.0, "second")});
    const std::vector<Values> g{zeros(4), zeros(4)};
    rig.step(g), rig.step(g);  // steps 0 and 1; at the first nobody has a history
    CHECK(rig.weights(0) == Values{1.0, 0.25, -2.0, 0.75});
    rig.step(g);
    CHECK(rig.weights(0) == Values{1.0, 7.0, -2.0, 0.75});
    CHECK(rig.weights(1) == Values{-64.0, 7.0, 128.0, 48.0});
    CHECK(rig.optimizer->scalars().at("swr.replaced") == 2.0);
  }
}

TEST_CASE("swr: the gradient of that step decides, and at threshold zero only what has no utility at all goes") {
  for (const Device d : kBoth) {
    Rig rig = still(d, "every=1:threshold=0", {tensor({0.0, 1.0, 2.0, 1e-9})});
    rig.step(Values{0.0, 0.0, 0.0, 0.0});
    rig.step(Values{5.0, 0.0, 1.0, 1.0});
    CHECK(rig.weights()[0] == 7.0);
    CHECK(rig.weights()[1] == 7.0);
    CHECK(rig.weights()[2] == 2.0);
    CHECK(rig.weights()[3] == doctest::Approx(1e-9));
    Rig other = still(d, "every=1:threshold=0.1", {tensor({1.0, 1.0, 1.0})});
    other.step(Values{0.0, 1.0, 1.0}), other.step(Values{1.0, 0.01, -1.0});
    CHECK(other.weights() == Values{1.0, 7.0, 1.0});
  }
}

TEST_CASE("swr: a proportion takes that many of least utility, equals by index, rounded at random to the exact mean") {
  for (const Device d : kBoth) {
    Values start(100);
    for (std::size_t i = 0; i < 100; ++i) start[i] = 1.0 + double((i * 37) % 100);
    Rig rig = still(d, "every=1:proportion=0.1:utility=magnitude", {tensor(start, 1000.0)});
    rig.step(zeros(100)), rig.step(zeros(100));
    Values expected = start;
    for (double& x : expected)
      if (x <= 10.0) x = 1000.0;
    CHECK(rig.weights() == expected);
    Rig equal = still(d, "every=1:proportion=0.5:utility=magnitude", {tensor({1.0, 1.0, 1.0, 1.0})});
    equal.step(zeros(4)), equal.step(zeros(4));
    CHECK(equal.weights() == Values{7.0, 7.0, 1.0, 1.0});
  }
  Rig rig = still(kCpu, "every=1:proportion=0.05:utility=magnitude", {tensor(Values(10, 1.0))});
  for (int i = 0; i <= 400; ++i) rig.step(zeros(10));
  // Half a weight a step: 400 throws of a coin, five deviations.
  CHECK(std::abs(rig.optimizer->scalars().at("swr.replaced") - 200.0) < 5.0 * 10.0);
}

TEST_CASE("swr: a new value is drawn as at the start, each step another; or it is the mean; a gain becomes one") {
  for (const Device d : kBoth) {
    const std::size_t n = 20000;
    Piece wide{zeros(n)}, gain{{5.0, 5.0}, "gain"};
    wide.init = {Init::Rule::uniform, 0.5}, gain.init = {Init::Rule::ones};
    Rig rig = still(d, "every=1:threshold=1e6:utility=magnitude", {wide, gain});
    const std::vector<Values> g{zeros(n), zeros(2)};
    rig.step(g), rig.step(g);
    const Values first = rig.weights();
    rig.step(g);
    const Values second = rig.weights();
    double sum = 0.0, squares = 0.0, products = 0.0;
    for (std::size_t i = 0; i < n; ++i)
      sum += first[i], squares += first[i] * first[i], products += first[i] * second[i];
    // A uniform of bound 1/2 has variance 1/12, whose own deviation is 1/(12 sqrt(5/4)) a draw; five of each.
    const double root = std::sqrt(double(n));
    CHECK(std::abs(sum / double(n)) < 5.0 * std::sqrt(1.0 / 12.0) / root);
    CHECK(std::abs(squares / double(n) - 1.0 / 12.0) < 5.0 * std::sqrt(1.0 / 180.0) / root);
    CHECK(std::abs(products / double(n)) < 5.0 / 12.0 / root);
    CHECK(rig.weights(1) == Values{1.0, 1.0});
    Rig mean = still(d, "every=1:threshold=1e6:value=mean", {wide, gain});
    mean.step(g), mean.step({Values(n, 1.0), {1.0, 1.0}});
    CHECK(mean.weights() == zeros(n));
    CHECK(mean.weights(1) == Values{1.0, 1.0});
  }
}

TEST_CASE("swr: moments stay, or those of the weights that changed become zero, and no others") {
  for (const Device d : kBoth)
    for (const bool clear : {false, true}) {
      Rig rig(d, cat("adamw:weight-decay=0+swr:every=2:threshold=0.5:utility=magnitude:clear-moments=", clear),
              {tensor({1.0, 0.25, -2.0, 0.75}), tensor({1.0, 1.0}, 7.0, "second")}, 1e-4);
      for (int i = 0; i < 3; ++i) rig.step({{1.0, 2.0, 3.0, 4.0}, {1.0, 1.0}});
      REQUIRE(rig.weights()[1] == 7.0);
      int arrays = 0;
      rig.optimizer->visit_moments([&](Tensor& t) {
        const Values m = t.to_host();
        const auto own = std::size_t(rig.list[0]->offset), other = std::size_t(rig.list[1]->offset);
        CHECK((m[own + 1] == 0.0) == clear);
        for (const std::size_t i : {own, own + 2, own + 3, other, other + 1}) CHECK(m[i] != 0.0);
        ++arrays;
      });
      CHECK(arrays == 2);
    }
}

TEST_CASE("swr: nothing chosen changes no bit, frozen tensors stay, mistakes are named") {
  for (const Device d : kBoth) {
    Rig with(d, "adamw+swr:every=1:proportion=0", {{{0.7, -0.2, -0.9}}}), without(d, "adamw", {{{0.7, -0.2, -0.9}}});
    for (int i = 0; i < 6; ++i) with.step({0.3, -1.0, 2.0}), without.step({0.3, -1.0, 2.0});
    CHECK(with.weights() == without.weights());
    Piece frozen = tensor({1.0, 2.0});
    frozen.frozen = true;
    Rig rig = still(d, "every=1:threshold=1e6:utility=magnitude", {frozen});
    rig.step(zeros(2)), rig.step(zeros(2));
    CHECK(rig.weights() == Values{1.0, 2.0});
  }
  const auto made = [](const std::string& method) { return usage_error([&] { Rig(kCpu, method, {{{1.0}}}); }); };
  CHECK(contains(made("swr:threshold=1:proportion=0.1"), "give one"));
  CHECK(contains(made("swr:proportion=2"), "proportion"));
  CHECK(contains(made("swr:utility=weight"), "magnitude"));
}

}  // namespace eg::test
