// tests/cases/layer_norm.cpp
#include "autograd/ops/layer_norm.h"

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::LayerNorm> suite() {
  const auto make = [](Shape x, double offset = 0.0) {
    return std::vector<Arg>{{x, Draw::activation, offset}, {{x[-1]}, Draw::parameter}, {{x[-1]}, Draw::parameter}};
  };
  return {
      .arguments = {"x", "gamma", "beta"},
      .cases = {{"one token, three channels", make({1, 3})},
                {"primes", make({2, 7, 13})},
                {"around a vector", make({3, 33})},
                {"mean of 30 sigma", make({4, 33}, 30.0)},
                {"eps that matters", make({4, 8}), {0.5}},
                {"an empty batch", make({0, 8})},
                {"many rows", make({2, 197, 96}), {}, false}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        return {layer_norm_value(in[0], in[1], in[2], attrs.eps)};
      },
      .bad = {{"eps", [](auto&, auto& attrs) { attrs.eps = 0.0; }}},
  };
}

}  // namespace eg::test
