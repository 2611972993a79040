// autograd/ops/mlp.cpp - the two-layer perceptron of a block, both directions fused around the activation.
#include "autograd/ops/mlp.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void Mlp::check(const In& in, const Attrs& attrs) {
  const auto& [x, w1, b1, w2, b2] = in;
  require_activation(name, "x", x);
  require_rank(name, "x", x, 1);
  require_like(name, "w1", w1, x);
  require_rank(name, "w1", w1, 2, 2);
  require_shape(name, "w1", w1, {w1.dim(0), x.dim(-1)}, "hidden units by the last extent of x");
  require_like(name, "b1", b1, x);
  require_shape(name, "b1", b1, {w1.dim(0)}, "one entry per row of w1");
  require_like(name, "w2", w2, x);
  require_rank(name, "w2", w2, 2, 2);
  require_shape(name, "w2", w2, {w2.dim(0), w1.dim(0)}, "outputs by hidden units, the rows of w1");
  for (const Tensor* sums : {&attrs.sums.absolute, &attrs.sums.positive, &attrs.sums.value})
    if (*sums) require_shape(name, "sums", *sums, {w1.dim(0)}, "one entry per hidden unit");
  if (attrs.sums.rows) require_shape(name, "sums.rows", attrs.sums.rows, {1}, "one count");
  if (!b2) return;
  require_like(name, "b2", b2, x);
  require_shape(name, "b2", b2, {w2.dim(0)}, "one entry per row of w2");
}

Mlp::Out Mlp::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const auto& [x, w1, b1, w2, b2] = in;
  Shape hidden = x.shape(), shape = x.shape();
  hidden[-1] = w1.dim(0);
  shape[-1] = w2.dim(0);
  Tensor z = result(x, hidden);  // the epilogue writes it whether it is kept or not
  const Tensor h = result(x, hidden), y = result(x, shape);
  if (x.rows() != 0) {
    Matmul up{.a = matrix(x), .b = w1.view(), .c = matrix(h), .transpose_b = true};
    up.epilogue = Epilogue::bias_gelu;
    up.gelu = attrs.kind;
    up.bias = b1.view();
    up.aux = matrix(z);
    EVERGRAD_CALL(x.device(), matmul, up);
    if (saved && attrs.sums) {
      const auto optional = [](const Tensor& t) { return t ? t.view() : TensorView{}; };
      EVERGRAD_CALL(x.device(), unit_statistics,
                    UnitStatistics{.z = matrix(z),
                                   .positive = optional(attrs.sums.positive),
                                   .sum_abs = optional(attrs.sums.absolute),
                                   .sum = optional(attrs.sums.value),
                                   .rows = optional(attrs.sums.rows),
                                   .kind = attrs.kind});
    }
    if (!saved) z = {};
    Matmul down{.a = matrix(h), .b = w2.view(), .c = matrix(y), .transpose_b = true};
    if (b2) down.epilogue = Epilogue::bias, down.bias = b2.view();
    EVERGRAD_CALL(x.device(), matmul, down);
  }
  if (saved) *saved = {x, w1, w2, z, h};
  return {y};
}

void Mlp::backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to) {
  const auto& [dx, dw1, db1, dw2, db2] = to;
  linear_backward(dy[0], saved.h, saved.w2, {}, dw2, db2);
  if (!dx.wanted && !dw1.wanted && !db1.wanted) return;
  const Tensor dz = result(saved.z, saved.z.shape());
  Matmul m{.a = matrix(dy[0]), .b = saved.w2.view(), .c = matrix(dz)};
  m.epilogue = Epilogue::dgelu;
  m.gelu = attrs.kind;
  m.aux = matrix(saved.z);
  if (db1.wanted) m.bias_grad = db1.view, m.accumulate_bias_grad = db1.accumulate;
  EVERGRAD_CALL(dz.device(), matmul, m);
  linear_backward(dz, saved.x, saved.w1, dx, dw1, {});
}

}  // namespace eg::ops
