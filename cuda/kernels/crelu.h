// cuda/kernels/crelu.h - parameters of crelu.cu.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

struct CreluParams {
  Operand x, y, dx;       // y: the result, or its gradient
  std::int64_t n, width;  // elements of x, and of one of its rows
  bool accumulate, wide;  // wide: packs do not cross rows
};
void (*crelu_fwd_kernel())(CreluParams);
void (*crelu_bwd_kernel())(CreluParams);

}  // namespace eg::EVERGRAD_BACKEND
