// autograd/ops/linear_gelu.h - gelu(x w^T + b) in one product. Twin: gelu(linear(x, w, b)).
// Shapes   x [...,I], w [O,I], b [O] -> y [...,O].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct LinearGelu {
  static constexpr std::string_view name = "linear_gelu";
  static constexpr std::size_t arity = 3, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    GeluKind kind = GeluKind::erf;
  };
  struct Saved {
    Tensor x, w, z /*pre-activation*/;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<LinearGelu>);

}  // namespace eg::ops
