// tests/cases/pool_tokens.cpp
#include "autograd/ops/pool_tokens.h"

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::PoolTokens> suite() {
  return {
      .arguments = {"x"},
      .cases = {{"the class token", {{{2, 5, 7}}}, {0, 1}},
                {"the mean of the patches", {{{3, 6, 4}}}, {1, 5}},
                {"the last token", {{{2, 4, 33}}}, {3, 1}},
                {"an empty batch", {{{0, 4, 3}}}, {0, 1}},
                {"197 tokens", {{{2, 197, 31}}}, {1, 196}, false}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        const std::int64_t batch = in[0].shape[0], n = in[0].shape[1], c = in[0].shape[2];
        Host y = host({batch, c});
        for (std::int64_t b = 0; b < batch; ++b)
          for (std::int64_t t = attrs.first; t < attrs.first + attrs.count; ++t)
            for (std::int64_t ch = 0; ch < c; ++ch)
              y.v[std::size_t(b * c + ch)] += in[0].v[std::size_t((b * n + t) * c + ch)] / double(attrs.count);
        return {y};
      },
      .bad = {{"first", [](auto&, auto& attrs) { attrs.first = -1; }},
              {"count", [](auto&, auto& attrs) { attrs.count = 0; }},
              {"count", [](auto&, auto& attrs) { attrs.count = 6; }}},
  };
}

}  // namespace eg::test
