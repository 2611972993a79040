// autograd/ops/linear_gelu.cpp - a dense layer with its activation in the product's epilogue.
#include "autograd/ops/linear_gelu.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void LinearGelu::check(const In& in, const Attrs&) {
  const auto& [x, w, b] = in;
  require_activation(name, "x", x);
  require_rank(name, "x", x, 1);
  require_like(name, "w", w, x);
  require_rank(name, "w", w, 2, 2);
  eg::check(w.dim(1) == x.dim(-1), Kind::shape, [&, &cw = w, &cx = x] {
    return cat(name, ": w takes ", cw.dim(1), " inputs but x ends in ", cx.dim(-1), "; w is ", cw, ", x is ", cx);
  });
  require_like(name, "b", b, x);
  require_shape(name, "b", b, {w.dim(0)}, "one entry per row of w");
}

LinearGelu::Out LinearGelu::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const auto& [x, w, b] = in;
  Shape shape = x.shape();
  shape[-1] = w.dim(0);
  const Tensor y = result(x, shape), z = result(x, shape);  // the epilogue writes z whether it is kept or not
  if (y.size() != 0) {
    Matmul m{.a = matrix(x), .b = w.view(), .c = matrix(y), .transpose_b = true};
    m.epilogue = Epilogue::bias_gelu;
    m.gelu = attrs.kind;
    m.bias = b.view();
    m.aux = matrix(z);
    EVERGRAD_CALL(x.device(), matmul, m);
  }
  if (saved) *saved = {x, w, z};
  return {y};
}

void LinearGelu::backward(const Out& dy, const Saved& saved, const Attrs& attrs,
                          const std::array<Destination, arity>& to) {
  const Tensor dz = result(saved.z, saved.z.shape());
  EVERGRAD_CALL(dz.device(), gelu_bwd, GeluBwd{saved.z.view(), dy[0].view(), dz.view(), attrs.kind, false});
  linear_backward(dz, saved.x, saved.w, to[0], to[1], to[2]);
}

}  // namespace eg::ops
