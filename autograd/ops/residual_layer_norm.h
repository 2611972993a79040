// autograd/ops/residual_layer_norm.h - sum = x + residual and layer_norm(sum) in one pass over memory. Twin: add, then
// layer_norm.
//
// Both addends have the same gradient, the layer norm's plus the one that reaches the sum by its other path; the tape
// shares it.
// Shapes   x, residual [...,C], gamma [C], beta [C] -> sum, y [...,C].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct ResidualLayerNorm {
  static constexpr std::string_view name = "residual_layer_norm";
  static constexpr std::size_t arity = 4, results = 2;
  static constexpr std::array<SameAs, arity> same_as{SameAs{}, SameAs{.input = 0}, SameAs{}, SameAs{}};
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    double eps = 1e-6;
  };
  struct Saved {
    Tensor sum, gamma, mean, rstd;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<ResidualLayerNorm>);

}  // namespace eg::ops
