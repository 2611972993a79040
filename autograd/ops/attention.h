// autograd/ops/attention.h - softmax(scale q k^T) v per head on a packed projection (Vaswani et al. 2017,
// arXiv:1706.03762; backward from the row-wise log-sum-exp after Dao et al. 2022, arXiv:2205.14135). Shapes   qkv
// [B,N,3 H D] -> [B,N,H D].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct Attention {
  static constexpr std::string_view name = "attention";
  static constexpr std::size_t arity = 1, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    int heads = 1;
    double scale = 0.0;  // > 0; functions.cpp fills in D^-1/2
  };
  struct Saved {
    Tensor qkv, out, lse;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<Attention>);

}  // namespace eg::ops
