// tests/cases/prepend_prompts.cpp
#include "autograd/ops/prepend_prompts.h"

#include "tests/autograd/suite.h"

namespace eg::test {

template <>
Suite<ops::PrependPrompts> suite() {
  const auto make = [](Shape x, std::int64_t prompts, std::int64_t length, std::int64_t select) {
    return std::vector<Arg>{
        {x}, {{prompts, length, x[2]}, Draw::parameter}, {{x[0], select}, Draw::labels, 0.0, prompts}};
  };
  return {
      .arguments = {"x", "prompts", "chosen"},
      .cases = {{"two of three", make({2, 4, 5}, 3, 2, 2), {2}},
                {"one of one", make({3, 2, 7}, 1, 3, 1), {1}},
                {"a prompt that several images have", make({5, 1, 4}, 2, 1, 1), {1}},
                {"an empty batch", make({0, 4, 5}, 3, 2, 2), {2}},
                {"a pool of ten", make({3, 65, 32}, 10, 10, 4), {4}, false}},
      .oracle = [](const Hosts& in, const auto&) -> Hosts {
        const std::int64_t batch = in[0].shape[0], n = in[0].shape[1], c = in[0].shape[2];
        const std::int64_t length = in[1].shape[1], select = in[2].shape[1], prefix = select * length;
        Host y = host({batch, prefix + n, c});
        for (std::int64_t i = 0; i < y.shape.size(); ++i) {
          const std::int64_t b = i / c / (prefix + n), t = i / c % (prefix + n), ch = i % c;
          const std::int64_t m = t < prefix ? std::int64_t(in[2].v[std::size_t(b * select + t / length)]) : 0;
          y.v[std::size_t(i)] = t < prefix ? in[1].v[std::size_t((m * length + t % length) * c + ch)]
                                           : in[0].v[std::size_t((b * n + t - prefix) * c + ch)];
        }
        return {y};
      },
      .bad = {{"chosen",
               [](auto& in, auto&) {
                 const std::vector<std::int32_t> chosen{0, 1, 3, 2};
                 in[2] = Tensor::from(std::span<const std::int32_t>(chosen), {2, 2}, in[0].device());
               }},
              {"chosen",
               [](auto& in, auto&) {
                 in[2] = Tensor::zeros({2, 4}, DType::i32, in[0].device());
               }}},
  };
}

}  // namespace eg::test
