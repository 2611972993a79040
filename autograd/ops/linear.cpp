// autograd/ops/linear.cpp - the dense layer.
#include "autograd/ops/linear.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void Linear::check(const In& in, const Attrs&) {
  const auto& [x, w, b] = in;
  require_activation(name, "x", x);
  require_rank(name, "x", x, 1);
  require_like(name, "w", w, x);
  require_rank(name, "w", w, 2, 2);
  eg::check(w.dim(1) == x.dim(-1), Kind::shape, [&, &cw = w, &cx = x] {
    return cat(name, ": w takes ", cw.dim(1), " inputs but x ends in ", cx.dim(-1), "; w is ", cw, ", x is ", cx);
  });
  if (!b) return;
  require_like(name, "b", b, x);
  require_shape(name, "b", b, {w.dim(0)}, "one entry per row of w");
}

Linear::Out Linear::forward(const In& in, const Attrs&, Saved* saved) {
  const auto& [x, w, b] = in;
  Shape shape = x.shape();
  shape[-1] = w.dim(0);
  Tensor y = result(x, shape);
  if (y.size() != 0) {
    Matmul m{.a = matrix(x), .b = w.view(), .c = matrix(y), .transpose_b = true};
    if (b) m.epilogue = Epilogue::bias, m.bias = b.view();
    EVERGRAD_CALL(x.device(), matmul, m);
  }
  if (saved) *saved = {x, w};
  return {y};
}

void Linear::backward(const Out& dy, const Saved& saved, const Attrs&, const std::array<Destination, arity>& to) {
  linear_backward(dy[0], saved.x, saved.w, to[0], to[1], to[2]);
}

}  // namespace eg::ops
