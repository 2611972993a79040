// autograd/ops/linear.h - y = x w^T + b, the dense layer.
// Shapes   x [...,I], w [O,I], b [O] or empty -> y [...,O].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct Linear {
  static constexpr std::string_view name = "linear";
  static constexpr std::size_t arity = 3, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {};
  struct Saved {
    Tensor x, w;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<Linear>);

}  // namespace eg::ops
