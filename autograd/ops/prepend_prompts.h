// autograd/ops/prepend_prompts.h - the prompts that each image chose, in front of its tokens (Wang et al. 2022,
// arXiv:2112.08654).
// Shapes   x [B,N,C], prompts [M,L,C], chosen i32 [B,S] -> [B, S L + N, C].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct PrependPrompts {
  static constexpr std::string_view name = "prepend_prompts";
  static constexpr std::size_t arity = 3, results = 1;
  static constexpr std::array<bool, arity> differentiable{true, true, false};
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    std::int64_t select = 1;  // S
  };
  struct Saved {
    Shape x, prompts;
    Tensor chosen;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<PrependPrompts>);

}  // namespace eg::ops
