// tests/cases/attention.cpp
#include "autograd/ops/attention.h"

#include <cmath>

#include "tests/autograd/suite.h"

namespace eg::test {

namespace {

Host attention_value(const Host& qkv, std::size_t heads, double scale) {
  const auto batch = std::size_t(qkv.shape[0]), n = std::size_t(qkv.shape[1]);
  const std::size_t width = std::size_t(qkv.shape[2]) / 3 / heads;
  Host out = host({qkv.shape[0], qkv.shape[1], qkv.shape[2] / 3});
  const auto at = [&](std::size_t b, std::size_t t, std::size_t part, std::size_t h, std::size_t d) {
    return qkv.v[(((b * n + t) * 3 + part) * heads + h) * width + d];
  };
  for (std::size_t b = 0; b < batch; ++b)
    for (std::size_t h = 0; h < heads; ++h)
      for (std::size_t i = 0; i < n; ++i) {
        std::vector<double> p(n);
        double largest = -1e300, total = 0;
        for (std::size_t j = 0; j < n; ++j) {
          for (std::size_t d = 0; d < width; ++d) p[j] += scale * at(b, i, 0, h, d) * at(b, j, 1, h, d);
          largest = std::max(largest, p[j]);
        }
        for (double& v : p) total += v = std::exp(v - largest);
        for (std::size_t d = 0; d < width; ++d) {
          double sum = 0;
          for (std::size_t j = 0; j < n; ++j) sum += p[j] / total * at(b, j, 2, h, d);
          out.v[((b * n + i) * heads + h) * width + d] = sum;
        }
      }
  return out;
}

}  // namespace

template <>
Suite<ops::Attention> suite() {
  return {
      .arguments = {"qkv"},
      .cases = {{"one token", {{{1, 1, 3}}}, {1, 1.0}},
                {"two heads", {{{2, 5, 24}}}, {2, 0.5}},
                {"an odd width", {{{1, 7, 27}}}, {3, 0.57}},
                {"a sharp softmax", {{{1, 6, 12}}}, {1, 8.0}},
                {"an empty batch", {{{0, 4, 12}}}, {2, 0.5}},
                {"197 tokens", {{{2, 197, 96}}}, {2, 0.25}, false}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        return {attention_value(in[0], std::size_t(attrs.heads), attrs.scale)};
      },
      .bad = {{"heads", [](auto&, auto& attrs) { attrs.heads = 0; }},
              {"heads", [](auto&, auto& attrs) { attrs.heads = 7; }},
              {"scale", [](auto&, auto& attrs) { attrs.scale = 0.0; }}},
  };
}

}  // namespace eg::test
