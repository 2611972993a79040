// autograd/ops/mean.cpp - the scaled mean of all elements.
#include "autograd/ops/mean.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void MeanLoss::check(const In& in, const Attrs&) {
  require_activation(name, "x", in[0]);
  eg::check(in[0].size() > 0, Kind::shape, [&] { return cat(name, ": x has no elements, got ", in[0]); });
}

MeanLoss::Out MeanLoss::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const Tensor& x = in[0];
  const Tensor out = result(x, {1}, x.device().statistic());
  EVERGRAD_CALL(x.device(), mean, eg::Mean{x.view(), out.view(), attrs.scale});
  if (saved) *saved = {x.shape(), x.device()};
  return {out};
}

void MeanLoss::backward(const Out& dy, const Saved& saved, const Attrs& attrs,
                        const std::array<Destination, arity>& to) {
  if (!to[0].wanted) return;
  // The factor is multiplied out in the statistic type and ones are exact, so each element is rounded once.
  const Tensor factor = result(dy[0], {1}), ones = result(dy[0], saved.x, to[0].view.dtype);
  EVERGRAD_CALL(saved.device, fill, Fill{factor.view(), attrs.scale / double(saved.x.size())});
  EVERGRAD_CALL(saved.device, scale_by, ScaleBy{factor.view(), dy[0].view(), factor.view(), false});
  EVERGRAD_CALL(saved.device, fill, Fill{ones.view(), 1.0});
  EVERGRAD_CALL(saved.device, scale_by,
                ScaleBy{ones.view(), factor.view(), viewed(to[0].view, saved.x), to[0].accumulate});
}

}  // namespace eg::ops
