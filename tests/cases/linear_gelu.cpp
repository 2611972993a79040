// tests/cases/linear_gelu.cpp
#include "autograd/ops/linear_gelu.h"

#include "autograd/functions.h"
#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::LinearGelu> suite() {
  const auto make = [](Shape x, Shape w) {
    return std::vector<Arg>{{x}, {w, Draw::parameter}, {{w[0]}, Draw::parameter}};
  };
  return {
      .arguments = {"x", "w", "b"},
      .cases = {{"one number", make({1, 1}, {1, 1})},
                {"tokens", make({2, 5, 7}, {3, 7})},
                {"tanh form", make({3, 8}, {9, 8}), {GeluKind::tanh}},
                {"an empty batch", make({0, 6}, {5, 6})},
                {"primes", make({2, 97, 31}, {67, 31}), {}, false}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        Host y = linear_value(in[0], in[1], in[2]);
        for (double& v : y.v) v = gelu_value(v, attrs.kind == GeluKind::tanh);
        return {y};
      },
      .bad = {{"b", [](auto& in, auto&) { in[2] = {}; }}},
      .twin = [](const auto& in,
                 const auto& attrs) { return ops::LinearGelu::Out{gelu(linear(in[0], in[1], in[2]), attrs.kind)}; },
  };
}

}  // namespace eg::test
