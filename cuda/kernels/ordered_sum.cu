// cuda/kernels/ordered_sum.cu - the sum over ranks whose order never changes.
//
// Math     out[i] = (..(part_0[i] + part_1[i]) + ..) + part_{R-1}[i], in fp32 (double for f64), rounded once
// Shapes   parts [R, stride], of which the first n of each row count; out [n]
// Traffic  R n elements in, n out: for R ranks about what a ring moves through this GPU's links
// Work     an addition an element: bound by memory
// Mapping  a thread takes packs of 8 elements, grid-stride; neighbours read neighbours in every part
// Limits   f32, bf16, f64; any size; unaligned operands and f64 go element by element
#include "cuda/kernels/ordered_sum.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

// Four blocks a multiprocessor suffice; for more, ptxas would spill.
__global__ void __launch_bounds__(256, 4) ordered_sum_device(const OrderedSumParams p) {
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    if (p.out.type == DType::f64) {
      for (int k = 0; k < count; ++k) {
        double sum = static_cast<const double*>(p.parts.data)[i + k];
        for (int r = 1; r < p.ranks; ++r) sum += static_cast<const double*>(p.parts.data)[r * p.stride + i + k];
        static_cast<double*>(p.out.data)[i + k] = sum;
      }
      return;
    }
    float sum[kPack], next[kPack];
    load_some(p.parts, i, count, wide, sum);
    for (int r = 1; r < p.ranks; ++r) {
      load_some(p.parts, r * p.stride + i, count, wide, next);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) sum[k] += next[k];
    }
    store_some(p.out, i, count, wide, sum);
  });
}

}  // namespace

void (*ordered_sum_kernel())(OrderedSumParams) { return &ordered_sum_device; }

}  // namespace eg::EVERGRAD_BACKEND
