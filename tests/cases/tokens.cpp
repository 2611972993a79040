// tests/cases/tokens.cpp
#include "autograd/ops/tokens.h"

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::Tokens> suite() {
  const auto make = [](Shape x, std::int64_t prefix, std::int64_t pos) {
    return std::vector<Arg>{{x},
                            prefix ? Arg{{prefix, x[2]}, Draw::parameter} : absent(),
                            pos ? Arg{{1, pos, x[2]}, Draw::parameter} : absent()};
  };
  return {
      .arguments = {"patches", "prefix", "pos"},
      .cases = {{"a class token, positions everywhere", make({2, 4, 5}, 1, 5)},
                {"registers, positions on patches only", make({3, 4, 7}, 3, 4)},
                {"no prefix", make({2, 3, 33}, 0, 3)},
                {"no positions", make({2, 3, 4}, 1, 0)},
                {"neither", make({2, 3, 4}, 0, 0)},
                {"an empty batch", make({0, 4, 5}, 1, 5)},
                {"197 tokens", make({3, 196, 32}, 1, 197), {}, false}},
      .oracle = [](const Hosts& in, const auto&) -> Hosts {
        const std::int64_t batch = in[0].shape[0], n = in[0].shape[1], c = in[0].shape[2];
        const std::int64_t p = in[1] ? in[1].shape[0] : 0, skip = in[2] ? p + n - in[2].shape[1] : 0;
        Host y = host({batch, p + n, c});
        for (std::int64_t i = 0; i < y.shape.size(); ++i) {
          const std::int64_t b = i / c / (p + n), t = i / c % (p + n), ch = i % c;
          double& v = y.v[std::size_t(i)];
          v = t < p ? in[1].v[std::size_t(t * c + ch)] : in[0].v[std::size_t((b * n + t - p) * c + ch)];
          if (in[2] && t >= skip) v += in[2].v[std::size_t((t - skip) * c + ch)];
        }
        return {y};
      },
  };
}

}  // namespace eg::test
