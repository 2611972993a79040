// autograd/ops/pool_tokens.cpp - from tokens to one vector per image.
#include "autograd/ops/pool_tokens.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void PoolTokens::check(const In& in, const Attrs& attrs) {
  require_activation(name, "x", in[0]);
  require_rank(name, "x", in[0], 3, 3);
  eg::check(attrs.first >= 0 && attrs.count >= 1 && attrs.first <= in[0].dim(1) - attrs.count, Kind::usage, [&] {
    return cat(name, ": first ", attrs.first, " and count ", attrs.count, " do not fit the ", in[0].dim(1),
               " tokens of x; x is ", in[0]);
  });
}

PoolTokens::Out PoolTokens::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const Tensor& x = in[0];
  const Tensor out = result(x, {x.dim(0), x.dim(2)});
  if (out.size() != 0) EVERGRAD_CALL(x.device(), pool_fwd, PoolFwd{x.view(), out.view(), attrs.first, attrs.count});
  if (saved) saved->x = x.shape();
  return {out};
}

void PoolTokens::backward(const Out& dy, const Saved& saved, const Attrs& attrs,
                          const std::array<Destination, arity>& to) {
  if (!to[0].wanted) return;
  EVERGRAD_CALL(dy[0].device(), pool_bwd,
                PoolBwd{dy[0].view(), viewed(to[0].view, saved.x), attrs.first, attrs.count, to[0].accumulate});
}

}  // namespace eg::ops
