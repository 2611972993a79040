// tests/cases/crelu.cpp
#include "autograd/ops/crelu.h"

#include <cmath>

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::Crelu> suite() {
  return {
      .arguments = {"x"},
      .cases = {{"one number", {{{1}}}},
                {"around a vector", {{{33}}}},
                {"tokens", {{{2, 5, 7}}}},
                {"whole packs", {{{3, 16}}}},
                {"an empty batch", {{{0, 8}}}},
                {"large", {{{197, 61}}}, {}, false}},
      .oracle = [](const Hosts& in, const auto&) -> Hosts {
        Host y = in[0];
        const std::size_t width = std::size_t(in[0].shape[-1]);
        y.shape[-1] = 2 * std::int64_t(width);
        y.v.assign(2 * in[0].v.size(), 0.0);
        for (std::size_t i = 0; i < in[0].v.size(); ++i) {
          const double x = in[0].v[i];
          y.v[2 * (i / width) * width + i % width + (x < 0.0 ? width : 0)] = std::abs(x);
        }
        return {y};
      },
  };
}

}  // namespace eg::test
