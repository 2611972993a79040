// autograd/ops/layer_norm.h - y = (x - mean) rstd gamma + beta over the last axis (Ba, Kiros, Hinton 2016,
// arXiv:1607.06450). Shapes   x [...,C], gamma [C], beta [C] -> y [...,C].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct LayerNorm {
  static constexpr std::string_view name = "layer_norm";
  static constexpr std::size_t arity = 3, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    double eps = 1e-6;
  };
  struct Saved {
    Tensor x, gamma, mean, rstd;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<LayerNorm>);

}  // namespace eg::ops
