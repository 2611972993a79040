// cuda/kernels/qk_norm.cuh - what the two qk_norm files share.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

#if EVERGRAD_HAS_DEVICE_WORDS

/// One of two parameters, by value: a reference would move the parameters to memory of the thread.
__device__ __forceinline__ Operand chosen(bool first, const Operand& a, const Operand& b) {
  return {first ? a.data : b.data, first ? a.type : b.type};
}

#endif  // EVERGRAD_HAS_DEVICE_WORDS

}  // namespace eg::EVERGRAD_BACKEND
