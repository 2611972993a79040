// autograd/ops/cross_entropy.h - Softmax cross-entropy summed over the batch and divided by `divisor`. Forward makes
// the gradient in the same pass over the logits; backward scales it by the incoming scalar. Label smoothing: Szegedy et
// al. 2016, arXiv:1512.00567. Shapes   logits [B,K]; labels i32 [B] or soft statistic [B,K]; class_mask u8 [K] or empty
// -> loss statistic [1],
//          correct i32 [B].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct CrossEntropyLoss {
  static constexpr std::string_view name = "cross_entropy";
  static constexpr std::size_t arity = 4, results = 2;
  static constexpr std::array<bool, arity> differentiable{true, false, false, false};
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    double smoothing = 0.0;  // in [0, 1)
    double divisor = 1.0;    // > 0
  };
  struct Saved {
    Tensor dlogits;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<CrossEntropyLoss>);

}  // namespace eg::ops
