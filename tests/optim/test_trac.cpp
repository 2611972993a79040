// tests/optim/test_trac.cpp - TRAC against the golden values of methods.md A.4.
#include <cmath>

#include "engine/trac_tune.h"
#include "tests/optim/rig.h"

namespace eg::test {
namespace {

/// One step down x^2 / 2; returns {S, x}.
std::pair<double, double> descend(Rig& rig) {
  rig.step(rig.weights());
  return {rig.optimizer->scalars().at("trac.scale"), rig.weights()[0]};
}

}  // namespace

TEST_CASE("trac: erfi is the golden one, and odd") {
  for (const auto& [x, value] : std::vector<std::pair<double, double>>{
           {0.5, 0.614952094697}, {1.0, 1.650425758798}, {2.0, 18.56480241458}, {5.0, 8298273880.68}}) {
    CHECK(trac_erfi(x) == doctest::Approx(value).epsilon(1e-11));
    CHECK(trac_erfi(-x) == -trac_erfi(x));
  }
  CHECK(trac_erfi(1.0 / std::sqrt(2.0)) == doctest::Approx(0.953438269251).epsilon(1e-11));
}

TEST_CASE("trac: the first scale is the golden one, whatever the gradient") {
  for (const Device d : kBoth)
    for (const std::string mode : {"literal", "accumulator"}) {
      Rig rig(d, "sgd:momentum=0+trac:mode=" + mode, {{{1.0, -3.0}}}, 0.1);
      rig.step(Values{5.0, 0.2});
      CHECK(rig.optimizer->scalars().at("trac.scale") == doctest::Approx(1.005822698744e-7).epsilon(1e-10));
    }
}

TEST_CASE("trac: a first h much larger than 1e-8 sets the scale to plus or minus six starts") {
  for (const double sign : {1.0, -1.0}) {
    Rig rig(kReference, "sgd:momentum=0+trac", {{{1.0}}}, 0.1);
    rig.step(Values{1.0});
    rig.step(Values{-sign});  // the way is -0.1, so h = 0.1 sign
    CHECK(rig.optimizer->scalars().at("trac.scale") == doctest::Approx(-sign * 6e-8).epsilon(1e-6));
  }
}

TEST_CASE("trac: the golden way down x^2 / 2, literal form in double") {
  Rig rig(kReference, "sgd:momentum=0+trac:mode=literal", {{{1.0}}}, 0.1);
  // The displacement 1e-8 keeps eight digits of a double near 1.
  const double scales[] = {1.00582e-7, 6.0000002e-8, 9.62983349e-8, 1.364488669e-7};
  const double ways[] = {-0.1, -0.190956958, -0.263677392, -0.338871978};
  for (int i = 0; i < 4; ++i) {
    const auto [scale, x] = descend(rig);
    const double way = (x - 1.0) / scale;
    CAPTURE(i);
    CHECK(scale == doctest::Approx(scales[i]).epsilon(4e-6));
    CHECK(way == doctest::Approx(ways[i]).epsilon(1e-6));
  }
  for (int i = 4; i < 51; ++i) descend(rig);
  CHECK(std::abs(rig.weights()[0] - 1.0) == doctest::Approx(1.0032).epsilon(1e-3));
}

TEST_CASE("trac: accumulated in fp32 it follows the plain recursion in double, and does not stand still") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0+trac", {{{1.0}}}, 0.1);
    std::vector<double> state(kTracState, 0.0);
    for (int j = 0; j < kTracTuners; ++j) state[std::size_t(kTracSigma + j)] = kTracStart;
    double x = 1.0, way = 0.0, farthest = 0.0;
    for (int i = 0; i < 70; ++i) {
      trac_tune(state.data(), x * way);
      way -= 0.1 * x;
      x = 1.0 + std::max(0.0, state[kTracScale]) * way;
      descend(rig);
      farthest = std::max(farthest, std::abs(rig.weights()[0] - 1.0));
      // The tuners square small differences again and again: fp32 and double part slowly.
      if (i < 40) CHECK(rig.weights()[0] == doctest::Approx(x).epsilon(d == kReference ? 1e-12 : 1e-4));
    }
    CHECK(farthest > 0.5);
  }
}

TEST_CASE("trac: a new task keeps the reference or moves it; what rewrites weights is refused") {
  for (const std::string boundary : {"keep", "rebase"}) {
    Rig rig(kReference, "sgd:momentum=0+trac:boundary=" + boundary, {{{1.0}}}, 0.1);
    for (int i = 0; i < 60; ++i) descend(rig);
    const Values before = rig.weights();
    StepContext ctx = rig.context();
    ctx.task = 1;
    rig.optimizer->task_boundary(ctx, true);
    CHECK(rig.weights() == before);
    CHECK((rig.optimizer->scalars().at("trac.scale") == 0.0) == (boundary == "rebase"));
  }
  for (const char* other : {"nap", "shrink-perturb", "weight-clipping", "fresh"})
    CHECK(contains(usage_error([&] { Rig(kCpu, cat("trac+", other), {{{1.0}}}); }), "does not combine"));
}

TEST_CASE("trac: a head that a new task draws anew is kept") {
  for (const Device d : kBoth)
    for (const std::string mode : {"literal", "accumulator"}) {
      Piece head{{1.0, -2.0}};
      head.name = "head.weight", head.module = Module::head, head.block = -1;
      Rig rig(d, "sgd:momentum=0+trac:mode=" + mode, {head, {{1.0}}}, 0.1);
      for (int i = 0; i < 60; ++i) rig.step({rig.weights(0), rig.weights(1)});
      rig.list[0]->master.copy_from(Tensor::from(Values{7.0, 8.0}, {1, 2}, rig.list[0]->master.dtype(), d));
      StepContext ctx = rig.context();
      ctx.task = 1, ctx.head_changed = true;
      rig.optimizer->task_boundary(ctx, true);
      rig.step({{0.0, 0.0}, {0.0}});
      CHECK(rig.weights(0) == Values{7.0, 8.0});
    }
}

}  // namespace eg::test
