// autograd/ops/branch_scale.h - y = x scale[c] mask[b]: layer scale (Touvron et al. 2021, arXiv:2103.17239) and
// stochastic depth (Huang et al. 2016, arXiv:1603.09382) on one residual branch. Shapes   x [B,...,C], scale [C] or
// empty, mask statistic [B] or empty -> [B,...,C].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct BranchScale {
  static constexpr std::string_view name = "branch_scale";
  static constexpr std::size_t arity = 3, results = 1;
  static constexpr std::array<bool, arity> differentiable{true, true, false};
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {};
  struct Saved {
    Tensor x /*only when scale is given*/, scale, mask;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<BranchScale>);

}  // namespace eg::ops
