// autograd/ops/add.cpp - the sum of two tensors of one shape.
#include "autograd/ops/add.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void Add::check(const In& in, const Attrs&) {
  require_activation(name, "a", in[0]);
  require_like(name, "b", in[1], in[0]);
  require_shape(name, "b", in[1], in[0].shape(), "the shape of a; nothing is broadcast");
}

Add::Out Add::forward(const In& in, const Attrs&, Saved*) {
  const Tensor out = result(in[0], in[0].shape());
  if (out.size() != 0) EVERGRAD_CALL(out.device(), add, eg::Add{in[0].view(), in[1].view(), out.view()});
  return {out};
}

void Add::backward(const Out& dy, const Saved&, const Attrs&, const std::array<Destination, arity>& to) {
  for (const Destination& d : to) write_gradient(dy[0].device(), dy[0].view(), d);
}

}  // namespace eg::ops
