// tests/cases/branch_scale.cpp
#include "autograd/ops/branch_scale.h"

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::BranchScale> suite() {
  const auto make = [](Shape x, bool scale, bool mask) {
    return std::vector<Arg>{
        {x}, scale ? Arg{{x[-1]}, Draw::parameter} : absent(), mask ? Arg{{x[0]}, Draw::mask} : absent()};
  };
  return {
      .arguments = {"x", "scale", "mask"},
      .cases = {{"both", make({4, 3, 7}, true, true)},
                {"scale alone", make({2, 3, 33}, true, false)},
                {"mask alone", make({5, 3, 4}, false, true)},
                {"no token axis", make({3, 8}, true, true)},
                {"an empty batch", make({0, 3, 8}, true, true)},
                {"many tokens", make({4, 97, 31}, true, true), {}, false}},
      .oracle = [](const Hosts& in, const auto&) -> Hosts {
        Host y = in[0];
        const auto c = std::size_t(y.shape.cols());
        const std::size_t per_sample = y.shape[0] ? y.v.size() / std::size_t(y.shape[0]) : 1;
        for (std::size_t i = 0; i < y.v.size(); ++i)
          y.v[i] *= (in[1] ? in[1].v[i % c] : 1.0) * (in[2] ? in[2].v[i / per_sample] : 1.0);
        return {y};
      },
  };
}

}  // namespace eg::test
