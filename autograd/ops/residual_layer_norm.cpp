// autograd/ops/residual_layer_norm.cpp - residual sum and layer norm in one pass.
#include "autograd/ops/residual_layer_norm.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void ResidualLayerNorm::check(const In& in, const Attrs& attrs) {
  const auto& [x, residual, gamma, beta] = in;
  require_activation(name, "x", x);
  require_rank(name, "x", x, 1);
  require_like(name, "residual", residual, x);
  require_shape(name, "residual", residual, x.shape(), "the shape of x");
  require_like(name, "gamma", gamma, x);
  require_shape(name, "gamma", gamma, {x.dim(-1)}, "one entry per channel of x");
  require_like(name, "beta", beta, x);
  require_shape(name, "beta", beta, {x.dim(-1)}, "one entry per channel of x");
  eg::check(attrs.eps > 0, Kind::usage, [&] { return cat(name, ": eps must be positive, got ", attrs.eps); });
}

ResidualLayerNorm::Out ResidualLayerNorm::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const auto& [x, residual, gamma, beta] = in;
  const DType stat = x.device().statistic();
  const Tensor sum = result(x, x.shape()), y = result(x, x.shape());
  const Tensor mean = result(x, {x.rows()}, stat), rstd = result(x, {x.rows()}, stat);
  if (y.size() != 0) {
    LayerNormFwd a{.x = matrix(x), .residual = matrix(residual), .sum = matrix(sum)};
    a.gamma = gamma.view(), a.beta = beta.view(), a.y = matrix(y);
    a.mean = mean.view(), a.rstd = rstd.view(), a.eps = attrs.eps;
    EVERGRAD_CALL(x.device(), layer_norm_fwd, a);
  }
  if (saved) *saved = {sum, gamma, mean, rstd};
  return {sum, y};
}

void ResidualLayerNorm::backward(const Out& dy, const Saved& saved, const Attrs&,
                                 const std::array<Destination, arity>& to) {
  const auto& [sum, gamma, mean, rstd] = saved;
  const Device device = sum.device();
  if (!dy[1]) {  // only the sum was used
    write_gradient(device, dy[0].view(), to[0]);
    write_zero(device, to[2]);
    write_zero(device, to[3]);
    return;
  }
  LayerNormBwd a{.dy = matrix(dy[1]), .x = matrix(sum), .gamma = gamma.view(), .mean = mean.view()};
  a.rstd = rstd.view();
  if (dy[0]) a.dsum = matrix(dy[0]);
  const Tensor unused = to[0].wanted ? Tensor() : result(sum, sum.shape());
  a.dx = matrix(to[0].wanted ? to[0].view : unused.view());
  a.dgamma = wanted_view(to[2]), a.dbeta = wanted_view(to[3]);
  a.accumulate = to[0].wanted && to[0].accumulate;
  a.accumulate_params = common_accumulate(device, {&to[2], &to[3]});
  EVERGRAD_CALL(device, layer_norm_bwd, a);
}

}  // namespace eg::ops
