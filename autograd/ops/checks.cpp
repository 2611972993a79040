// autograd/ops/checks.cpp - argument checks and destination helpers shared by the cards.
#include "autograd/ops/checks.h"

#include "engine/memory.h"

namespace eg::ops {

void require(std::string_view op, std::string_view argument, const Tensor& t) {
  check(bool(t), Kind::usage, [&] { return cat(op, ": ", argument, " is an empty tensor, but it is not optional"); });
}

void require_activation(std::string_view op, std::string_view argument, const Tensor& t) {
  require(op, argument, t);
  const bool exact = t.device().type == DeviceType::reference;
  const bool fits = exact ? t.dtype() == DType::f64 : t.dtype() == DType::f32 || t.dtype() == DType::bf16;
  check(fits, Kind::dtype, [&] {
    return cat(op, ": ", argument, " must be ", exact ? "f64" : "f32 or bf16", " on ", t.device(), ", got ", t);
  });
}

void require_like(std::string_view op, std::string_view argument, const Tensor& t, const Tensor& x) {
  require_type(op, argument, t, x.dtype(), x);
}

void require_type(std::string_view op, std::string_view argument, const Tensor& t, DType dtype, const Tensor& x) {
  require(op, argument, t);
  check(t.device() == x.device(), Kind::device, [&] {
    return cat(op, ": ", argument, " is on ", t.device(), " but the first argument is on ", x.device(),
               "; move it with to()");
  });
  check(t.dtype() == dtype, Kind::dtype,
        [&] { return cat(op, ": ", argument, " must be ", dtype, ", got ", t, "; the first argument is ", x); });
}

void require_shape(std::string_view op, std::string_view argument, const Tensor& t, const Shape& shape,
                   std::string_view why) {
  check(t.shape() == shape, Kind::shape,
        [&] { return cat(op, ": ", argument, " must have shape ", shape, " (", why, "), got ", t); });
}

void require_rank(std::string_view op, std::string_view argument, const Tensor& t, int at_least, int at_most) {
  check(t.rank() >= at_least && t.rank() <= at_most, Kind::shape, [&] {
    return cat(op, ": ", argument, " must have ", at_least, at_least == at_most ? "" : " or more", " axes, got ", t);
  });
}

void write_zero(Device device, const Destination& to) {
  if (!to.wanted || to.accumulate || to.view.size() == 0) return;
  runtime(device).set_zero(to.view.data, std::size_t(to.view.size()) * size_of(to.view.dtype), {});
}

void write_gradient(Device device, const TensorView& g, const Destination& to) {
  if (!to.wanted || g.size() == 0) return;
  const TensorView y = viewed(to.view, g.shape);
  if (to.accumulate)
    EVERGRAD_CALL(device, axpy, Axpy{g, y, 1.0});
  else
    EVERGRAD_CALL(device, cast, Cast{g, y});
}

bool common_accumulate(Device device, std::initializer_list<const Destination*> all) {
  bool any = false;
  for (const Destination* to : all) any = any || (to->wanted && to->accumulate);
  if (any)
    for (const Destination* to : all) write_zero(device, *to);
  return any;
}

Tensor result(const Tensor& like, const Shape& shape, DType dtype) { return pool(like.device()).empty(shape, dtype); }

void linear_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Destination& dx, const Destination& dw,
                     const Destination& db) {
  const Device device = dy.device();
  if (dw.wanted) {
    Matmul m{.a = matrix(dy), .b = matrix(x), .c = viewed(dw.view, w.shape()), .transpose_a = true};
    m.accumulate = dw.accumulate;
    if (db.wanted) {
      m.epilogue = Epilogue::bias_grad_a;
      m.bias_grad = db.view;
      m.accumulate_bias_grad = db.accumulate;
    }
    EVERGRAD_CALL(device, matmul, m);
  } else if (db.wanted) {
    EVERGRAD_CALL(device, column_sum, ColumnSum{matrix(dy), db.view, db.accumulate});
  }
  if (dx.wanted) {
    Matmul m{.a = matrix(dy), .b = w.view(), .c = matrix(dx.view)};
    m.accumulate = dx.accumulate;
    EVERGRAD_CALL(device, matmul, m);
  }
}

}  // namespace eg::ops
