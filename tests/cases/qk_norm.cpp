// tests/cases/qk_norm.cpp
#include "autograd/ops/qk_norm.h"

#include <cmath>

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::QkNorm> suite() {
  const auto make = [](Shape x, std::int64_t width) {
    const Arg p{{width}, Draw::parameter};
    return std::vector<Arg>{{x}, p, p, p, p};
  };
  return {
      .arguments = {"qkv", "gamma_q", "beta_q", "gamma_k", "beta_k"},
      .cases = {{"one token, one head", make({1, 1, 6}, 2), {1}},
                {"two heads", make({2, 3, 24}, 4), {2}},
                {"three heads of an odd width", make({1, 5, 45}, 5), {3, 1e-3}},
                {"an empty batch", make({0, 3, 24}, 4), {2}},
                {"197 tokens", make({2, 197, 96}, 16), {2}, false}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        Host y = in[0];
        const auto heads = std::size_t(attrs.heads), width = std::size_t(in[0].shape[2]) / 3 / heads;
        for (std::size_t row = 0; row < y.v.size() / width; ++row) {
          const std::size_t part = row / heads % 3;
          if (part == 2) continue;
          Host one = host({1, std::int64_t(width)});
          for (std::size_t d = 0; d < width; ++d) one.v[d] = y.v[row * width + d];
          one = layer_norm_value(one, in[1 + 2 * part], in[2 + 2 * part], attrs.eps);
          for (std::size_t d = 0; d < width; ++d) y.v[row * width + d] = one.v[d];
        }
        return {y};
      },
      .bad = {{"heads", [](auto&, auto& attrs) { attrs.heads = -1; }},
              {"eps", [](auto&, auto& attrs) { attrs.eps = 0.0; }}},
  };
}

}  // namespace eg::test
