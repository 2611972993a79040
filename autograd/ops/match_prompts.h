// autograd/ops/match_prompts.h - which prompts of a pool an image gets, and the loss that draws their keys near (Wang et al.
// 2022, arXiv:2112.08654): the keys of largest cosine with the image's query; the term is scale times the sum of the cosines
// of all images with the keys they chose. The choice has no gradient, and the query is a constant: the network that makes it
// is frozen.
// Shapes   query [B,C], keys [M,C] -> term statistic [1], chosen i32 [B,select].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct MatchPrompts {
  static constexpr std::string_view name = "match_prompts";
  static constexpr std::size_t arity = 2, results = 2;
  static constexpr std::array<bool, arity> differentiable{false, true};
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    std::int64_t select = 1;
    bool batchwise = false;
    double scale = 1.0;
  };
  struct Saved {
    Tensor query, keys, query_scale, key_scale, cosine, chosen;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<MatchPrompts>);

}  // namespace eg::ops
