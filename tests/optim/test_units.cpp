// tests/optim/test_units.cpp - replacement of hidden units: continual backpropagation and ReDo (methods.md B.1, B.2).
#include <algorithm>
#include <cmath>

#include "tests/optim/rig.h"

namespace eg::test {
namespace {

/// One MLP with `units` hidden units of three inputs and two outputs.
std::vector<Piece> mlp(std::int64_t units) {
  const auto n = std::size_t(units);
  return {{.start = Values(3 * n, 0.5),
           .name = "blocks.0.mlp.fc1.weight",
           .module = Module::fc1,
           .shape = {units, 3},
           .init = {Init::Rule::normal, 0.5},
           .link = {0, 1, 2}},
          {.start = Values(n, 0.1),
           .name = "blocks.0.mlp.fc1.bias",
           .module = Module::fc1,
           .decays = false,
           .shape = {units}},
          {.start = Values(2 * n, 1.0), .name = "blocks.0.mlp.fc2.weight", .module = Module::fc2, .shape = {2, units}}};
}
std::vector<Values> nothing(std::int64_t units) {
  const auto n = std::size_t(units);
  return {Values(3 * n, 0.0), Values(n, 0.0), Values(2 * n, 0.0)};
}
std::vector<Values> ones(std::int64_t units) {
  const auto n = std::size_t(units);
  return {Values(3 * n, 1.0), Values(n, 1.0), Values(2 * n, 1.0)};
}
/// The units that were replaced: their column of the second matrix is zero.
std::vector<std::size_t> replaced(const Rig& rig) {
  const Values out = rig.weights(2);
  std::vector<std::size_t> all;
  for (std::size_t f = 0; f < out.size() / 2; ++f)
    if (out[f] == 0.0 && out[out.size() / 2 + f] == 0.0) all.push_back(f);
  return all;
}

}  // namespace

TEST_CASE("cbp: 512 units, rate 1e-4, maturity 100: replacements at the golden steps, fifteen in 400") {
  Rig rig(kCpu, "sgd:momentum=0+cbp:rate=1e-4:maturity=100", mlp(512), 0.1);
  std::vector<int> steps;
  double before = 0.0;
  for (int step = 1; step <= 400; ++step) {
    rig.step(nothing(512));
    const double now = rig.optimizer->scalars().at("cbp.replaced");
    for (double k = before; k < now; ++k) steps.push_back(step);
    before = now;
  }
  CHECK(steps.size() == 15);
  CHECK(std::vector<int>(steps.begin(), steps.begin() + 6) == std::vector<int>{120, 140, 159, 179, 199, 218});
}

TEST_CASE("cbp: the mature units of least utility go, equals by index; nobody is replaced young") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0+cbp:rate=0.25:maturity=2", mlp(4), 0.1);
    rig.activity = {3.0, 1.0, 2.0, 1.0};
    rig.step(nothing(4)), rig.step(nothing(4));
    CHECK(replaced(rig).empty());
    rig.step(nothing(4));  // age 3 > 2: four mature units make one replacement
    CHECK(replaced(rig) == std::vector<std::size_t>{1});
    rig.step(nothing(4)), rig.step(nothing(4));  // three mature units a step: 0.75, then 1.5
    CHECK(replaced(rig) == std::vector<std::size_t>{1, 3});
  }
}

TEST_CASE("cbp: a replaced unit has a fresh row, no bias, no column, no moments, and its first step has Adam's size") {
  for (const Device d : kBoth)
    for (const std::string base : {"adamw", "arrow:window=3"}) {
      CAPTURE(base);
      auto pieces = mlp(4);
      if (base != "adamw") {  // something for ARROW to do
        pieces.push_back({Values(4, 1.0)});
      }
      const auto with = [&](std::vector<Values> g) {
        if (base != "adamw") g.push_back(Values(4, 0.1));
        return g;
      };
      Rig rig(d, base + ":weight-decay=0+cbp:rate=0.25:maturity=20", pieces, 0.01, 0.0);
      rig.activity = {3.0, 1.0, 2.0, 4.0};
      for (int i = 0; i < 21; ++i) rig.step(with(ones(4)));
      REQUIRE(replaced(rig) == std::vector<std::size_t>{1});
      CHECK(rig.weights(1)[1] == 0.0);
      const Values rows = rig.weights(0);
      CHECK((rows[3] != rows[4] || rows[4] != rows[5]));  // the others began, and were updated, alike
      rig.optimizer->visit_moments([&](Tensor& t) {
        const Values m = t.to_host();
        for (std::int64_t i = 3; i < 6; ++i) CHECK(m[std::size_t(rig.list[0]->offset + i)] == 0.0);
        CHECK(m[std::size_t(rig.list[1]->offset + 1)] == 0.0);
        CHECK(m[std::size_t(rig.list[2]->offset + 1)] == 0.0);
        CHECK(m[std::size_t(rig.list[2]->offset + 5)] == 0.0);
        CHECK(m[std::size_t(rig.list[0]->offset)] != 0.0);
      });
      const Values in = rig.weights(0), out = rig.weights(2);
      rig.step(with(ones(4)));
      // methods.md A.2: with the model's own count the first step would be 3.16 rates long.
      CHECK(in[4] - rig.weights(0)[4] == doctest::Approx(0.01).epsilon(1e-4));
      CHECK(out[1] - rig.weights(2)[1] == doctest::Approx(0.01).epsilon(1e-4));
      CHECK(in[0] - rig.weights(0)[0] == doctest::Approx(0.01).epsilon(1e-4));
    }
}

TEST_CASE(
    "cbp: where activations are constant, compensation leaves the output as it was; without it the unit's part goes") {
  for (const Device d : kBoth)
    for (const bool compensate : {false, true}) {
      auto pieces = mlp(4);
      pieces[0].link.fc2_bias = 3;
      pieces[2].start = {1.0, -2.0, 3.0, 0.5, 0.25, 1.5, -1.0, 2.0};
      pieces.push_back({.start = {0.5, -0.5}, .name = "blocks.0.mlp.fc2.bias", .module = Module::fc2, .decays = false});
      Rig rig(d, cat("sgd:momentum=0+cbp:rate=0.25:maturity=9:compensate=", compensate), pieces, 0.1);
      rig.activity = {3.0, 0.125, 2.0, 5.0};
      auto g = nothing(4);
      g.emplace_back(2, 0.0);
      const auto output = [&] {
        const Values w = rig.weights(2);
        Values y = rig.weights(3);
        for (std::size_t o = 0; o < 2; ++o)
          for (std::size_t f = 0; f < 4; ++f) y[o] += w[4 * o + f] * rig.activity[f];
        return y;
      };
      const Values before = output();
      for (int i = 0; i < 10; ++i) rig.step(g);
      REQUIRE(replaced(rig) == std::vector<std::size_t>{1});
      // The mean is an average of ten equal numbers: a dozen roundings of 1/8, times 2.
      Values expected = before;
      if (!compensate) expected[0] -= -2.0 * 0.125, expected[1] -= 1.5 * 0.125;
      check_close(output(), expected, d, 15.0, 1e-12);
    }
  CHECK(contains(usage_error([] { Rig(kCpu, "cbp:compensate", mlp(4)); }), "second bias"));
}

TEST_CASE("redo: golden scores; dormant units are replaced in the steps that are asked for") {
  for (const Device d : kBoth) {
    const auto after = [&](const std::string& options, int steps) {
      Rig rig(d, "sgd:momentum=0+redo:every=3:" + options, mlp(4), 0.1);
      rig.activity = {0.0, 0.1, 1.0, 2.9};
      for (int i = 0; i < steps; ++i) rig.step(nothing(4));
      return replaced(rig);
    };
    CHECK(after("tau=0.15", 3).empty());  // steps 0, 1, 2: at the first nobody has a history
    CHECK(after("tau=0.15", 4) == std::vector<std::size_t>{0, 1});
    CHECK(after("tau=0", 4) == std::vector<std::size_t>{0});
  }
}

TEST_CASE("redo: only the last batch counts") {
  Rig rig(kCpu, "sgd:momentum=0+redo:every=3:tau=0.15", mlp(4), 0.1);
  rig.activity = {0.0, 0.0, 0.0, 0.0};
  for (int i = 0; i < 3; ++i) rig.step(nothing(4));
  rig.activity = {0.0, 0.1, 1.0, 2.9};
  rig.step(nothing(4));
  CHECK(replaced(rig) == std::vector<std::size_t>{0, 1});
}

TEST_CASE("cbp and redo: windows of ARROW that hold the MLP begin anew, others go on") {
  for (const std::string options : {":mlp", ""}) {
    auto pieces = mlp(4);
    pieces.push_back({Values(4, 1.0)});
    Rig rig(kCpu, "arrow:window=3" + options + "+redo:every=4:tau=0.15", pieces, 0.01, 0.0);
    rig.activity = {0.0, 0.1, 1.0, 2.9};
    auto g = ones(4);
    g.push_back(Values(4, 0.1));
    for (int i = 0; i < 5; ++i) rig.step(g);
    CHECK(replaced(rig).size() == 2);
    CHECK(rig.arrow().filled == (options.empty() ? 3 : 0));
  }
}

TEST_CASE("unit methods: a model without an MLP is refused, rate zero changes no bit") {
  CHECK(contains(usage_error([] { Rig(kCpu, "cbp", {{{1.0}}}); }), "no MLP"));
  CHECK(contains(usage_error([] { Rig(kCpu, "cbp+redo", mlp(4)); }), "cbp and redo both replace"));
  Rig with(kCpu, "adamw+cbp:rate=0", mlp(8)), without(kCpu, "adamw", mlp(8));
  for (int i = 0; i < 9; ++i) with.step(ones(8)), without.step(ones(8));
  for (std::size_t p = 0; p < 3; ++p) CHECK(with.weights(p) == without.weights(p));
}

}  // namespace eg::test
