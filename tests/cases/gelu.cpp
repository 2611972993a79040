// tests/cases/gelu.cpp
#include "autograd/ops/gelu.h"

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::Gelu> suite() {
  return {
      .arguments = {"x"},
      .cases = {{"one number", {{{1}}}},
                {"around a vector", {{{33}}}},
                {"tanh form", {{{2, 31}}}, {GeluKind::tanh}},
                {"far left, where the tail counts", {{{4, 8}, Draw::activation, -4.0}}},
                {"an empty batch", {{{0, 8}}}},
                {"large", {{{197, 61}}}, {}, false}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        Host y = in[0];
        for (double& v : y.v) v = gelu_value(v, attrs.kind == GeluKind::tanh);
        return {y};
      },
  };
}

}  // namespace eg::test
