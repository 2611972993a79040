// autograd/ops/qk_norm.cpp - layer norm of queries and keys.
#include "autograd/ops/qk_norm.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

namespace {
Shape packed(const Tensor& qkv, int heads) { return {qkv.dim(0), qkv.dim(1), 3, heads, qkv.dim(2) / (3 * heads)}; }
}  // namespace

void QkNorm::check(const In& in, const Attrs& attrs) {
  const Tensor& qkv = in[0];
  require_activation(name, "qkv", qkv);
  require_rank(name, "qkv", qkv, 3, 3);
  eg::check(attrs.heads > 0, Kind::usage, [&] { return cat(name, ": heads must be positive, got ", attrs.heads); });
  const std::int64_t parts = 3 * std::int64_t(attrs.heads);
  eg::check(qkv.dim(2) > 0 && qkv.dim(2) % parts == 0, Kind::shape, [&] {
    return cat(name, ": qkv must end in 3 x heads x width, but ", qkv.dim(2), " is no multiple of 3 x ", attrs.heads,
               "; qkv is ", qkv);
  });
  static constexpr std::array<std::string_view, arity> kNames{"qkv", "gamma_q", "beta_q", "gamma_k", "beta_k"};
  for (std::size_t i = 1; i < arity; ++i) {
    require_like(name, kNames[i], in[i], qkv);
    require_shape(name, kNames[i], in[i], {qkv.dim(2) / parts}, "one entry per channel of a head");
  }
  eg::check(attrs.eps > 0, Kind::usage, [&] { return cat(name, ": eps must be positive, got ", attrs.eps); });
}

QkNorm::Out QkNorm::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const auto& [qkv, gamma_q, beta_q, gamma_k, beta_k] = in;
  const Tensor out = result(qkv, qkv.shape());
  const Shape rows{qkv.dim(0), qkv.dim(1), 2, attrs.heads};
  const DType stat = qkv.device().statistic();
  const Tensor mean = result(qkv, rows, stat), rstd = result(qkv, rows, stat);
  if (out.size() != 0) {
    const Shape wide = packed(qkv, attrs.heads);
    QkNormFwd a{.qkv = viewed(qkv.view(), wide), .gamma_q = gamma_q.view(), .beta_q = beta_q.view()};
    a.gamma_k = gamma_k.view(), a.beta_k = beta_k.view();
    a.out = viewed(out.view(), wide);
    a.mean = mean.view(), a.rstd = rstd.view(), a.eps = attrs.eps;
    EVERGRAD_CALL(qkv.device(), qk_norm_fwd, a);
  }
  if (saved) *saved = {qkv, gamma_q, gamma_k, mean, rstd};
  return {out};
}

void QkNorm::backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to) {
  const Device device = saved.qkv.device();
  const Shape wide = packed(saved.qkv, attrs.heads);
  QkNormBwd a{.qkv = viewed(saved.qkv.view(), wide), .gamma_q = saved.gamma_q.view()};
  a.gamma_k = saved.gamma_k.view(), a.mean = saved.mean.view(), a.rstd = saved.rstd.view();
  a.dout = viewed(dy[0].view(), wide);
  const Tensor unused = to[0].wanted ? Tensor() : result(saved.qkv, saved.qkv.shape());
  a.dqkv = viewed(to[0].wanted ? to[0].view : unused.view(), wide);
  a.dgamma_q = wanted_view(to[1]), a.dbeta_q = wanted_view(to[2]);
  a.dgamma_k = wanted_view(to[3]), a.dbeta_k = wanted_view(to[4]);
  a.accumulate = to[0].wanted && to[0].accumulate;
  a.accumulate_params = common_accumulate(device, {&to[1], &to[2], &to[3], &to[4]});
  EVERGRAD_CALL(device, qk_norm_bwd, a);
}

}  // namespace eg::ops
