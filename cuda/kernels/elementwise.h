// cuda/kernels/elementwise.h - parameters of elementwise.cu.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

enum class Elementwise : int { add, axpy, scale_by, fill, cast, gelu_erf, gelu_tanh, gelu_grad_erf, gelu_grad_tanh };

struct ElementwiseParams {
  Operand a, b, out;    // out = f(a, b); axpy: out += factor a
  const float* factor;  // scale_by
  double value;         // fill; axpy's alpha
  std::int64_t n;
  bool accumulate, wide;
};
using ElementwiseKernel = void (*)(ElementwiseParams);
ElementwiseKernel elementwise_kernel(Elementwise what);

}  // namespace eg::EVERGRAD_BACKEND
