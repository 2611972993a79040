// tests/optim/test_ema.cpp - the moving average of the weights.
#include "optim/ema.h"

#include <limits>

#include "tests/optim/dense.h"

using namespace eg;
using namespace eg::test;

TEST_CASE("ema: follows the weights, and a skipped step leaves it alone") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0", {{.start = {1.0}}}, 1.0);
    Ema ema(rig.arena, 0.75);
    rig.step(Values{1.0});
    ema.update(rig.context());
    CHECK(ema.average().to_host()[0] == 0.75);
    rig.step(Values{std::numeric_limits<double>::quiet_NaN()});
    ema.update(rig.context());
    CHECK(ema.average().to_host()[0] == 0.75);
    rig.step(Values{-2.0});  // the weight goes from 0 to 2
    ema.update(rig.context());
    CHECK(ema.average().to_host()[0] == 0.75 * 0.75 + 0.25 * 2.0);
    ema.rebase();
    CHECK(ema.average().to_host()[0] == 2.0);
  }
  Rig rig(kCpu, "sgd", {{.start = {1.0}}});
  for (const double decay : {0.0, 1.0, -0.5})
    CHECK(contains(usage_error([&] { Ema(rig.arena, decay); }), "between 0 and 1"));
}

TEST_CASE("ema: lends the model its average, also in the working copy, and leaves no trace") {
  const std::vector<Piece> pieces = {{.start = draw(100, 37)},
                                     {.start = draw(101, 5), .name = "b", .decays = false, .shape = {5}}};
  for (const Device d : kBoth)
    for (const DType activation : {DType::f64, DType::bf16}) {
      if (d == kReference && activation == DType::bf16) continue;
      Rig rig(d, "adamw", pieces, 0.1, 0.05, 0.0, activation);
      Ema ema(rig.arena, 0.9);
      for (int i = 0; i < 3; ++i) rig.step(std::vector<Values>{draw(i, 37), draw(i, 5, 1)}), ema.update(rig.context());
      const auto before = rig.bits();
      const Values working = rig.list[0]->value.to_host();
      {
        const auto applied = ema.apply();
        const Values average = ema.average().to_host();
        const auto first = average.begin() + std::ptrdiff_t(rig.list[0]->offset);
        Values expected(first, first + std::ptrdiff_t(rig.list[0]->size()));
        for (double& x : expected) x = activation == DType::bf16 ? double(bf16(x)) : x;
        CHECK(rig.list[0]->value.to_host() == expected);
        CHECK(expected != working);
        CHECK((rig.bits() == before) ==
              (activation == DType::bf16));  // where there is a working copy, the masters stay
      }
      CHECK(rig.bits() == before);
      CHECK(rig.list[0]->value.to_host() == working);
    }
}
