// autograd/ops/crelu.cpp - the concatenated rectifier.
#include "autograd/ops/crelu.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void Crelu::check(const In& in, const Attrs&) {
  require_activation(name, "x", in[0]);
  require_rank(name, "x", in[0], 1);
}

Crelu::Out Crelu::forward(const In& in, const Attrs&, Saved* saved) {
  Shape shape = in[0].shape();
  shape[-1] = 2 * shape[-1];
  const Tensor y = result(in[0], shape);
  if (y.size() != 0) EVERGRAD_CALL(y.device(), crelu_fwd, CreluFwd{in[0].view(), y.view()});
  if (saved) saved->x = in[0];
  return {y};
}

void Crelu::backward(const Out& dy, const Saved& saved, const Attrs&, const std::array<Destination, arity>& to) {
  if (!to[0].wanted || saved.x.size() == 0) return;
  EVERGRAD_CALL(dy[0].device(), crelu_bwd, CreluBwd{saved.x.view(), dy[0].view(), to[0].view, to[0].accumulate});
}

}  // namespace eg::ops
