// autograd/ops/attention.cpp - multi-head self-attention on a packed projection.
#include "autograd/ops/attention.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

namespace {
Shape packed(const Tensor& qkv, int heads) { return {qkv.dim(0), qkv.dim(1), 3, heads, qkv.dim(2) / (3 * heads)}; }
Shape per_head(const Tensor& out, int heads) { return {out.dim(0), out.dim(1), heads, out.dim(2) / heads}; }
}  // namespace

void Attention::check(const In& in, const Attrs& attrs) {
  const Tensor& qkv = in[0];
  require_activation(name, "qkv", qkv);
  require_rank(name, "qkv", qkv, 3, 3);
  eg::check(attrs.heads > 0, Kind::usage, [&] { return cat(name, ": heads must be positive, got ", attrs.heads); });
  eg::check(qkv.dim(2) > 0 && qkv.dim(2) % (3 * std::int64_t(attrs.heads)) == 0, Kind::shape, [&] {
    return cat(name, ": qkv must end in 3 x heads x width, but ", qkv.dim(2), " is no multiple of 3 x ", attrs.heads,
               "; qkv is ", qkv);
  });
  eg::check(attrs.scale > 0 && attrs.scale < 1e30, Kind::usage,
            [&] { return cat(name, ": scale must be positive and finite, got ", attrs.scale); });
}

Attention::Out Attention::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const Tensor& qkv = in[0];
  const Tensor out = result(qkv, {qkv.dim(0), qkv.dim(1), qkv.dim(2) / 3});
  const Tensor lse = result(qkv, {qkv.dim(0), attrs.heads, qkv.dim(1)}, qkv.device().statistic());
  if (out.size() != 0) {
    AttentionFwd a{.qkv = viewed(qkv.view(), packed(qkv, attrs.heads))};
    a.out = viewed(out.view(), per_head(out, attrs.heads));
    a.lse = lse.view();
    a.scale = attrs.scale;
    EVERGRAD_CALL(qkv.device(), attention_fwd, a);
  }
  if (saved) *saved = {qkv, out, lse};
  return {out};
}

void Attention::backward(const Out& dy, const Saved& saved, const Attrs& attrs,
                         const std::array<Destination, arity>& to) {
  if (!to[0].wanted) return;
  const Shape wide = packed(saved.qkv, attrs.heads), narrow = per_head(saved.out, attrs.heads);
  AttentionBwd a{.qkv = viewed(saved.qkv.view(), wide), .out = viewed(saved.out.view(), narrow)};
  a.lse = saved.lse.view();
  a.dout = viewed(dy[0].view(), narrow);
  a.dqkv = viewed(to[0].view, wide);
  a.scale = attrs.scale;
  a.accumulate = to[0].accumulate;
  EVERGRAD_CALL(saved.qkv.device(), attention_bwd, a);
}

}  // namespace eg::ops
