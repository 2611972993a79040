// autograd/ops/mean.h - scale times the mean of all elements.
// Shapes   x [...] -> statistic [1].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct MeanLoss {
  static constexpr std::string_view name = "mean";
  static constexpr std::size_t arity = 1, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    double scale = 1.0;
  };
  struct Saved {
    Shape x;
    Device device;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<MeanLoss>);

}  // namespace eg::ops
