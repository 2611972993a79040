// tests/cases/mean.cpp
#include "autograd/ops/mean.h"

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::MeanLoss> suite() {
  return {
      .arguments = {"x"},
      .cases = {{"one number", {{{1}}}, {2.0}},
                {"primes", {{{3, 5, 7}, Draw::activation, 1.0}}, {1.0}},
                {"large", {{{197, 61}, Draw::activation, 1.0}}, {0.5}, false}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        Host y = host({1});
        for (const double v : in[0].v) y.v[0] += v;
        y.v[0] *= attrs.scale / double(in[0].v.size());
        return {y};
      },
  };
}

}  // namespace eg::test
