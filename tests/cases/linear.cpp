// tests/cases/linear.cpp
#include "autograd/ops/linear.h"

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::Linear> suite() {
  const auto make = [](Shape x, Shape w, bool bias) {
    return std::vector<Arg>{{x}, {w, Draw::parameter}, bias ? Arg{{w[0]}, Draw::parameter} : absent()};
  };
  return {
      .arguments = {"x", "w", "b"},
      .cases = {{"one number", make({1, 1}, {1, 1}, true)},
                {"tokens", make({2, 5, 7}, {3, 7}, true)},
                {"without bias", make({3, 8}, {4, 8}, false)},
                {"around a register block", make({33, 31}, {32, 31}, true)},
                {"one vector", make({6}, {5, 6}, true)},
                {"an empty batch", make({0, 6}, {5, 6}, true)},
                {"primes", make({2, 197, 61}, {67, 61}, true), {}, false}},
      .oracle = [](const Hosts& in, const auto&) -> Hosts { return {linear_value(in[0], in[1], in[2])}; },
  };
}

}  // namespace eg::test
