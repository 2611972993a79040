// autograd/ops/qk_norm.h - Layer norm of q and k over the head width (Dehghani et al. 2023, arXiv:2302.05442); v passes
// unchanged. Shapes   qkv [B,N,3 H D], gamma_q, beta_q, gamma_k, beta_k [D] -> [B,N,3 H D].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct QkNorm {
  static constexpr std::string_view name = "qk_norm";
  static constexpr std::size_t arity = 5, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    int heads = 1;
    double eps = 1e-6;
  };
  struct Saved {
    Tensor qkv, gamma_q, gamma_k, mean, rstd;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<QkNorm>);

}  // namespace eg::ops
