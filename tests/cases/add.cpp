// tests/cases/add.cpp
#include "autograd/ops/add.h"

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::Add> suite() {
  return {
      .arguments = {"a", "b"},
      .cases = {{"one number", {{{1}}, {{1}}}},
                {"primes", {{{3, 5, 7}}, {{3, 5, 7}}}},
                {"empty", {{{0, 4}}, {{0, 4}}}}},
      .oracle = [](const Hosts& in, const auto&) -> Hosts {
        Host y = in[0];
        for (std::size_t i = 0; i < y.v.size(); ++i) y.v[i] += in[1].v[i];
        return {y};
      },
  };
}

}  // namespace eg::test
