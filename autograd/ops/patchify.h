// autograd/ops/patchify.h - Images to rows of patches: crop, flip, normalise, cut. One patch is a vector in (channel,
// row, column) order, so the patch embedding is a plain linear layer. Only float images without crop have a gradient.
// Shapes   images [B,C,S,S'] u8 or float, mean, stddev statistic [C] or empty, crop i32 [B,3] or empty -> [B,n,C P P].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct Patchify {
  static constexpr std::string_view name = "patchify";
  static constexpr std::size_t arity = 4, results = 1;
  static constexpr std::array<bool, arity> differentiable{true, false, false, false};
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    int patch = 16;
    int size = 224;  // side of the output image
    DType out = DType::f32;
  };
  struct Saved {
    Tensor stddev;
    bool cropped = false;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<Patchify>);

}  // namespace eg::ops
