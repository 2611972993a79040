// cuda/ladders/ceiling.cu - how fast the arithmetic units go when nothing else is asked of them: the bound that `evergrad
// bench` measures kernels against.
//
// Work     a warp multiplies registers by registers, into sums that do not wait for each other: 4096 FLOP per tensor-core
//          instruction, 2 per fused multiply-add. No memory is read, so nothing that is made of the same instructions
//          can be faster.
// Mapping  8 independent products a warp, 16 independent chains a thread, and more warps than a multiprocessor holds: one
//          that waits for its last result leaves the unit to others
// Limits   mma.sync is not all that Hopper has: products of warpgroups (matmul_warpgroup.cu, the libraries) go beyond this, so
//          their share of it may pass 100%. All operands of the tensor cores are 1: a GPU that lowers its clock by the power it
//          draws may be slower on changing numbers.
#include "cuda/ladders/ladders.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

__global__ void __launch_bounds__(kCeilingThreads) ceiling_tensor_cores_device(const LadderCeiling p) {
  const std::uint32_t one = pack_bf16(1.0f, 1.0f), a[4] = {one, one, one, one}, b[2] = {one, one};
  float sum[kCeilingProducts][4] = {};
  for (int round = 0; round < p.rounds; ++round) {
    EVERGRAD_UNROLL
    for (int i = 0; i < kCeilingProducts; ++i) mma_16816(sum[i], a, b);
  }
  float total = 0.0f;
  EVERGRAD_UNROLL
  for (int i = 0; i < kCeilingProducts; ++i) total += sum[i][0] + sum[i][1] + sum[i][2] + sum[i][3];
  p.out[std::int64_t(blockIdx.x) * kCeilingThreads + threadIdx.x] = total;  // every product adds 16 to four sums
}

__global__ void __launch_bounds__(kCeilingThreads) ceiling_fp32_device(const LadderCeiling p) {
  float sum[kCeilingChains];
  EVERGRAD_UNROLL
  for (int i = 0; i < kCeilingChains; ++i) sum[i] = float(i);
  for (int round = 0; round < p.rounds; ++round) {
    EVERGRAD_UNROLL
    for (int i = 0; i < kCeilingChains; ++i) sum[i] = fmaf(sum[i], p.factor, p.factor);
  }
  float total = 0.0f;
  EVERGRAD_UNROLL
  for (int i = 0; i < kCeilingChains; ++i) total += sum[i];
  p.out[std::int64_t(blockIdx.x) * kCeilingThreads + threadIdx.x] = total;
}

}  // namespace

void (*ceiling_tensor_cores())(LadderCeiling) { return &ceiling_tensor_cores_device; }
void (*ceiling_fp32())(LadderCeiling) { return &ceiling_fp32_device; }

}  // namespace eg::EVERGRAD_BACKEND
