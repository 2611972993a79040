// autograd/ops/gelu.cpp - the Gaussian error linear unit.
#include "autograd/ops/gelu.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void Gelu::check(const In& in, const Attrs&) { require_activation(name, "x", in[0]); }

Gelu::Out Gelu::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const Tensor y = result(in[0], in[0].shape());
  if (y.size() != 0) EVERGRAD_CALL(y.device(), gelu_fwd, GeluFwd{in[0].view(), y.view(), attrs.kind});
  if (saved) saved->x = in[0];
  return {y};
}

void Gelu::backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to) {
  if (!to[0].wanted) return;
  EVERGRAD_CALL(dy[0].device(), gelu_bwd,
                GeluBwd{saved.x.view(), dy[0].view(), to[0].view, attrs.kind, to[0].accumulate});
}

}  // namespace eg::ops
