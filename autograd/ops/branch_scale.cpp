// autograd/ops/branch_scale.cpp - layer scale and stochastic depth of one residual branch.
#include "autograd/ops/branch_scale.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

namespace {
/// [B, everything between, C], which is how the kernel sees the branch.
Shape batched(const Shape& s) {
  const std::int64_t batch = s[0], channels = s[-1];
  std::int64_t between = 1;
  for (int i = 1; i + 1 < s.rank(); ++i) between *= s[i];
  return {batch, between, channels};
}
}  // namespace

void BranchScale::check(const In& in, const Attrs&) {
  const auto& [x, scale, mask] = in;
  require_activation(name, "x", x);
  require_rank(name, "x", x, 2);
  if (scale) {
    require_like(name, "scale", scale, x);
    require_shape(name, "scale", scale, {x.dim(-1)}, "one entry per channel of x");
  }
  if (mask) {
    require_type(name, "mask", mask, x.device().statistic(), x);
    require_shape(name, "mask", mask, {x.dim(0)}, "one entry per sample of x");
  }
}

BranchScale::Out BranchScale::forward(const In& in, const Attrs&, Saved* saved) {
  const auto& [x, scale, mask] = in;
  const Tensor y = result(x, x.shape());
  if (y.size() != 0) {
    const Shape shape = batched(x.shape());
    BranchScaleFwd a{.x = viewed(x.view(), shape), .y = viewed(y.view(), shape)};
    if (scale) a.scale = scale.view();
    if (mask) a.mask = mask.view();
    EVERGRAD_CALL(x.device(), branch_scale_fwd, a);
  }
  if (saved) *saved = {scale ? x : Tensor(), scale, mask};
  return {y};
}

void BranchScale::backward(const Out& dy, const Saved& saved, const Attrs&, const std::array<Destination, arity>& to) {
  const Shape shape = batched(dy[0].shape());
  BranchScaleBwd a{.dy = viewed(dy[0].view(), shape)};
  const Tensor unused = to[0].wanted ? Tensor() : result(dy[0], dy[0].shape());
  a.dx = viewed(to[0].wanted ? to[0].view : unused.view(), shape);
  a.accumulate = to[0].wanted && to[0].accumulate;
  if (saved.x) a.x = viewed(saved.x.view(), shape), a.scale = saved.scale.view();
  if (saved.mask) a.mask = saved.mask.view();
  a.dscale = wanted_view(to[1]);
  a.accumulate_params = to[1].accumulate;
  EVERGRAD_CALL(dy[0].device(), branch_scale_bwd, a);
}

}  // namespace eg::ops
