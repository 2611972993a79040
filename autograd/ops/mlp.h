// autograd/ops/mlp.h - gelu(x w1^T + b1) w2^T + b2, the block's two-layer perceptron. Twin: linear(linear_gelu(x, w1,
// b1), w2, b2).
//
// With z the pre-activation and h = gelu(z):  dW2 = dy^T h,  dz = (dy W2) * gelu'(z),  dW1 = dz^T x,  dx = dz W1. The
// product that makes dz applies gelu' and sums its columns (the gradient of b1) while the tile is still in registers. h
// is kept rather than recomputed: one tensor of 4C per token against one more pass over it. Shapes   x [...,I], w1
// [F,I], b1 [F], w2 [O,F], b2 [O] or empty -> y [...,O].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"
#include "engine/unit_sums.h"

namespace eg::ops {

struct Mlp {
  static constexpr std::string_view name = "mlp";
  static constexpr std::size_t arity = 5, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    GeluKind kind = GeluKind::erf;
    UnitSums sums;  // optional; added to in passes that keep what backward needs
  };
  struct Saved {
    Tensor x, w1, w2, z, h;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<Mlp>);

}  // namespace eg::ops
