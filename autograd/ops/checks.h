// autograd/ops/checks.h - what the cards share: argument checks that name op, argument, numbers and remedy, and the few
// ways of writing a destination.
#pragma once
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

/// The argument is given.
void require(std::string_view op, std::string_view argument, const Tensor& t);
/// The argument is given and has the device's activation type: f32 or bf16, f64 on `reference`.
void require_activation(std::string_view op, std::string_view argument, const Tensor& t);
/// The argument is given, with dtype and device of x.
void require_like(std::string_view op, std::string_view argument, const Tensor& t, const Tensor& x);
/// The argument has exactly this dtype and the device of x.
void require_type(std::string_view op, std::string_view argument, const Tensor& t, DType dtype, const Tensor& x);
/// The argument has exactly this shape; `why` says what it must match, e.g. "one entry per channel of x".
void require_shape(std::string_view op, std::string_view argument, const Tensor& t, const Shape& shape,
                   std::string_view why);
/// The argument has at least `rank` axes.
void require_rank(std::string_view op, std::string_view argument, const Tensor& t, int at_least, int at_most = 6);

/// The view as a matrix: all leading axes are rows.
inline TensorView matrix(const TensorView& v) { return {v.data, v.dtype, {v.rows(), v.cols()}}; }
inline TensorView matrix(const Tensor& t) { return matrix(t.view()); }
inline TensorView viewed(TensorView v, const Shape& shape) {
  v.shape = shape;
  return v;
}
/// The destination's view, or an absent one when nobody wants it.
inline TensorView wanted_view(const Destination& to) { return to.wanted ? to.view : TensorView{}; }

/// Gradient zero: clears a wanted destination, unless it accumulates.
void write_zero(Device device, const Destination& to);
/// Gradient g, unchanged.
void write_gradient(Device device, const TensorView& g, const Destination& to);
/// Kernels with several parameter gradients have one accumulate flag for all. Returns it; when the destinations differ,
/// clears the overwriting ones first, so that all may accumulate.
bool common_accumulate(Device device, std::initializer_list<const Destination*> all);

/// A result, from the pool of the device of `like`.
Tensor result(const Tensor& like, const Shape& shape, DType dtype);
inline Tensor result(const Tensor& like, const Shape& shape) { return result(like, shape, like.dtype()); }

/// Backward of y = x w^T + b from dy: three products at most, the bias gradient inside the weight's.
void linear_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Destination& dx, const Destination& dw,
                     const Destination& db);

}  // namespace eg::ops
