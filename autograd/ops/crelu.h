// autograd/ops/crelu.h - {max(x, 0), max(-x, 0)}, side by side (Shang et al. 2016, arXiv:1603.05201): of each pair one is
// not zero, so that a unit can not stop passing a gradient.
// Shapes   x [...,F] -> y [...,2F].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct Crelu {
  static constexpr std::string_view name = "crelu";
  static constexpr std::size_t arity = 1, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {};
  struct Saved {
    Tensor x;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<Crelu>);

}  // namespace eg::ops
