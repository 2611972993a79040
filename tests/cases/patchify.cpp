// tests/cases/patchify.cpp
#include "autograd/ops/patchify.h"

#include <tuple>

#include "tests/autograd/suite.h"

namespace eg::test {

namespace {

Host patchify_value(const Hosts& in, int patch, int size, bool bytes) {
  const auto& [images, mean, stddev, crop] = std::tie(in[0], in[1], in[2], in[3]);
  const std::int64_t side = size / patch, channels = images.shape[1], high = images.shape[2], wide = images.shape[3];
  Host out = host({images.shape[0], side * side, channels * patch * patch});
  std::size_t at = 0;
  for (std::int64_t b = 0; b < images.shape[0]; ++b)
    for (std::int64_t n = 0; n < side * side; ++n)
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t i = 0; i < patch; ++i)
          for (std::int64_t j = 0; j < patch; ++j) {
            std::int64_t y = n / side * patch + i, x = n % side * patch + j;
            if (crop) {
              const double* const o = crop.v.data() + b * 3;
              y += std::int64_t(o[0]);
              x = std::int64_t(o[1]) + (o[2] != 0 ? size - 1 - x : x);
            }
            double v = 0;
            if (y >= 0 && y < high && x >= 0 && x < wide)
              v = images.v[std::size_t(((b * channels + c) * high + y) * wide + x)] / (bytes ? 255.0 : 1.0);
            if (mean) v = (v - mean.v[std::size_t(c)]) / stddev.v[std::size_t(c)];
            out.v[at++] = v;
          }
  return out;
}

}  // namespace

template <>
Suite<ops::Patchify> suite() {
  const auto make = [](Shape images, Draw draw, bool normalise, bool crop) {
    return std::vector<Arg>{{images, draw},
                            normalise ? Arg{{images[1]}, Draw::statistic} : absent(),
                            normalise ? Arg{{images[1]}, Draw::positive} : absent(),
                            crop ? Arg{{images[0], 3}, Draw::crop, 0.0, 3} : absent()};
  };
  return {
      .arguments = {"images", "mean", "stddev", "crop"},
      .cases = {{"floats, normalised", make({2, 3, 6, 6}, Draw::activation, true, false), {2, 6}},
                {"floats as they are", make({1, 1, 4, 4}, Draw::activation, false, false), {4, 4}},
                {"bytes, cropped and flipped", make({5, 3, 9, 8}, Draw::bytes, true, true), {3, 6}, false},
                {"bytes as they are", make({2, 1, 8, 8}, Draw::bytes, false, false), {4, 8}, false},
                {"an empty batch", make({0, 3, 6, 6}, Draw::activation, true, false), {2, 6}}},
      .oracle = [](const Hosts& in, const auto& attrs) -> Hosts {
        bool bytes = !in[0].v.empty();  // normal draws are never all whole numbers
        for (const double v : in[0].v) bytes = bytes && v == double(std::int64_t(v));
        return {patchify_value(in, attrs.patch, attrs.size, bytes)};
      },
      .bad = {{"patch", [](auto&, auto& attrs) { attrs.patch = 0; }},
              {"patch", [](auto&, auto& attrs) { attrs.patch = 4; }},
              {"size", [](auto&, auto& attrs) { attrs.size = 8; }},
              {"out", [](auto&, auto& attrs) { attrs.out = DType::i32; }},
              {"stddev", [](auto& in, auto&) { in[2] = {}; }}},
  };
}

}  // namespace eg::test
