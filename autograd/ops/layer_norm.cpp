// autograd/ops/layer_norm.cpp - layer norm over the last axis.
#include "autograd/ops/layer_norm.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void LayerNorm::check(const In& in, const Attrs& attrs) {
  const auto& [x, gamma, beta] = in;
  require_activation(name, "x", x);
  require_rank(name, "x", x, 1);
  require_like(name, "gamma", gamma, x);
  require_shape(name, "gamma", gamma, {x.dim(-1)}, "one entry per channel of x");
  require_like(name, "beta", beta, x);
  require_shape(name, "beta", beta, {x.dim(-1)}, "one entry per channel of x");
  eg::check(attrs.eps > 0, Kind::usage, [&] { return cat(name, ": eps must be positive, got ", attrs.eps); });
}

LayerNorm::Out LayerNorm::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const auto& [x, gamma, beta] = in;
  const DType stat = x.device().statistic();
  const Tensor y = result(x, x.shape()), mean = result(x, {x.rows()}, stat), rstd = result(x, {x.rows()}, stat);
  if (y.size() != 0) {
    LayerNormFwd a{.x = matrix(x), .gamma = gamma.view(), .beta = beta.view(), .y = matrix(y)};
    a.mean = mean.view(), a.rstd = rstd.view(), a.eps = attrs.eps;
    EVERGRAD_CALL(x.device(), layer_norm_fwd, a);
  }
  if (saved) *saved = {x, gamma, mean, rstd};
  return {y};
}

void LayerNorm::backward(const Out& dy, const Saved& saved, const Attrs&, const std::array<Destination, arity>& to) {
  const auto& [x, gamma, mean, rstd] = saved;
  LayerNormBwd a{.dy = matrix(dy[0]), .x = matrix(x), .gamma = gamma.view(), .mean = mean.view(), .rstd = rstd.view()};
  // Frozen input, learnable norm: the kernel's dx is not optional, so it goes to scratch.
  const Tensor unused = to[0].wanted ? Tensor() : result(x, x.shape());
  a.dx = matrix(to[0].wanted ? to[0].view : unused.view());
  a.dgamma = wanted_view(to[1]), a.dbeta = wanted_view(to[2]);
  a.accumulate = to[0].wanted && to[0].accumulate;
  a.accumulate_params = common_accumulate(x.device(), {&to[1], &to[2]});
  EVERGRAD_CALL(x.device(), layer_norm_bwd, a);
}

}  // namespace eg::ops
