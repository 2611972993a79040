// tests/cases/mlp.cpp
#include "autograd/ops/mlp.h"

#include "autograd/functions.h"
#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::Mlp> suite() {
  const auto make = [](Shape x, std::int64_t hidden, std::int64_t out, bool bias) {
    return std::vector<Arg>{{x},
                            {{hidden, x[-1]}, Draw::parameter},
                            {{hidden}, Draw::parameter},
                            {{out, hidden}, Draw::parameter},
                            bias ? Arg{{out}, Draw::parameter} : absent()};
  };
  return {
      .arguments = {"x", "w1", "b1", "w2", "b2"},
      .cases = {{"one number", make({1, 1}, 1, 1, true)},
                {"tokens", make({2, 5, 7}, 11, 7, true)},
                {"tanh form, no last bias", make({3, 8}, 9, 4, false), {GeluKind::tanh}},
                {"an empty batch", make({0, 6}, 5, 6, true)},
                {"primes", make({2, 47, 31}, 67, 31, true), {}, false}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        Host h = linear_value(in[0], in[1], in[2]);
        for (double& v : h.v) v = gelu_value(v, attrs.kind == GeluKind::tanh);
        return {linear_value(h, in[3], in[4])};
      },
      .twin =
          [](const auto& in, const auto& attrs) {
            return ops::Mlp::Out{linear(linear_gelu(in[0], in[1], in[2], attrs.kind), in[3], in[4])};
          },
  };
}

}  // namespace eg::test
