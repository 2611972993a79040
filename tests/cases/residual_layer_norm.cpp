// tests/cases/residual_layer_norm.cpp
#include "autograd/ops/residual_layer_norm.h"

#include "autograd/functions.h"
#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::ResidualLayerNorm> suite() {
  const auto make = [](Shape x) {
    return std::vector<Arg>{{x}, {x}, {{x[-1]}, Draw::parameter}, {{x[-1]}, Draw::parameter}};
  };
  return {
      .arguments = {"x", "residual", "gamma", "beta"},
      .cases = {{"one token, two channels", make({1, 2})},
                {"primes", make({2, 7, 13})},
                {"around a vector", make({3, 33}), {1e-3}},
                {"an empty batch", make({0, 8})},
                {"many rows", make({2, 97, 64}), {}, false}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        Host sum = in[0];
        for (std::size_t i = 0; i < sum.v.size(); ++i) sum.v[i] += in[1].v[i];
        return {sum, layer_norm_value(sum, in[2], in[3], attrs.eps)};
      },
      .bad = {{"eps", [](auto&, auto& attrs) { attrs.eps = -1.0; }}},
      .twin =
          [](const auto& in, const auto& attrs) {
            const Tensor sum = add(in[0], in[1]);
            return ops::ResidualLayerNorm::Out{sum, layer_norm(sum, in[2], in[3], attrs.eps)};
          },
  };
}

}  // namespace eg::test
