// autograd/ops/gelu.h - y = x Phi(x) (Hendrycks & Gimpel 2016, arXiv:1606.08415), or its tanh form.
// Shapes   x [...] -> y [...].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct Gelu {
  static constexpr std::string_view name = "gelu";
  static constexpr std::size_t arity = 1, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    GeluKind kind = GeluKind::erf;
  };
  struct Saved {
    Tensor x;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<Gelu>);

}  // namespace eg::ops
