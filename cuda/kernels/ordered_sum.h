// cuda/kernels/ordered_sum.h - parameters and host entry of ordered_sum.cu.
#pragma once
#include <cstdint>

#include "cuda/kernels/operand.cuh"
#include "engine/device.h"

namespace eg::EVERGRAD_BACKEND {

struct OrderedSumParams {
  Operand parts, out;
  std::int64_t n, stride;
  int ranks;
  bool wide;  // all rows are 16-byte aligned
};
void (*ordered_sum_kernel())(OrderedSumParams);

/// out [n] = parts[0] + parts[1] + ... in ascending order, where part r begins at element r * stride of `parts`. f32 and bf16
/// are summed in fp32 and rounded once, f64 in double. out may be none of the parts.
void ordered_sum(const void* parts, void* out, std::int64_t n, std::int64_t stride, int ranks, DType dtype, Stream s);

}  // namespace eg::EVERGRAD_BACKEND
