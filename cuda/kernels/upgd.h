// cuda/kernels/upgd.h - parameters of upgd.cu.
#pragma once
#include "cuda/kernels/segments.cuh"

namespace eg::EVERGRAD_BACKEND {

struct UpgdParams {
  Operand weight, grad, utility, work;
  const StepRecord* step;
  float* partials;  // largest utilities, one per warp of the first pass, over all launches of a call
  float* largest;   // of all
  std::int64_t first_partial, count;
  SegmentTable table;
  double beta;
  float noise;
  std::uint32_t stream;
  bool protects, wide;
};
inline constexpr int kUpgdWarps = kUpdateThreads / 32;
void (*upgd_utility_kernel())(UpgdParams);
void (*upgd_largest_kernel())(UpgdParams);
void (*upgd_weight_kernel())(UpgdParams);

}  // namespace eg::EVERGRAD_BACKEND
