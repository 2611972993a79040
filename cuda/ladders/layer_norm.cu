// cuda/ladders/layer_norm.cu - three rungs to the layer norm of kernels/layer_norm.cu, which is the fourth.
//
// A few FLOP for every number read: all that counts is how often a row is read, and whether neighbouring threads read
// neighbouring numbers.
#include "cuda/ladders/ladders.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

__device__ __forceinline__ float normalised(const LadderNorm& p, float x, float mean, float rstd, int c) {
  return (x - mean) * rstd * float(p.gamma[c]) + float(p.beta[c]);
}

// Rung 1. One thread, one row. The 32 threads of a warp read 32 rows at once, a whole row apart: every request of two
// bytes fetches a sector of 32.
__global__ void __launch_bounds__(128) by_thread_device(const LadderNorm p) {
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= p.rows) return;
  const bf16* const x = p.x + std::int64_t(row) * p.columns;
  float mean = 0.0f, square = 0.0f;
  for (int c = 0; c < p.columns; ++c) mean += float(x[c]);
  mean /= float(p.columns);
  for (int c = 0; c < p.columns; ++c) square += (float(x[c]) - mean) * (float(x[c]) - mean);
  const float rstd = 1.0f / sqrtf(square / float(p.columns) + p.eps);
  for (int c = 0; c < p.columns; ++c)
    p.y[std::int64_t(row) * p.columns + c] = to_bf16(normalised(p, float(x[c]), mean, rstd, c));
  p.mean[row] = mean, p.rstd[row] = rstd;
}

// Rung 2. One warp, one row: neighbours read neighbours, and five shuffles add up the lanes. The row is still read three
// times, twice of them from the cache if it is lucky.
__global__ void __launch_bounds__(128) by_warp_device(const LadderNorm p) {
  const int row = int(blockIdx.x) * 4 + int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  if (row >= p.rows) return;
  const bf16* const x = p.x + std::int64_t(row) * p.columns;
  float mean = 0.0f, square = 0.0f;
  for (int c = lane; c < p.columns; c += kWarp) mean += float(x[c]);
  mean = warp_sum(mean) / float(p.columns);
  for (int c = lane; c < p.columns; c += kWarp) square += (float(x[c]) - mean) * (float(x[c]) - mean);
  const float rstd = 1.0f / sqrtf(warp_sum(square) / float(p.columns) + p.eps);
  for (int c = lane; c < p.columns; c += kWarp)
    p.y[std::int64_t(row) * p.columns + c] = to_bf16(normalised(p, float(x[c]), mean, rstd, c));
  if (lane == 0) p.mean[row] = mean, p.rstd[row] = rstd;
}

// Rung 3. The row waits in registers between the passes: it is read once. Loops of a length that the compiler knows, or
// the array would move to memory.
__global__ void __launch_bounds__(128) in_registers_device(const LadderNorm p) {
  const int row = int(blockIdx.x) * 4 + int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  if (row >= p.rows) return;
  const bf16* const x = p.x + std::int64_t(row) * p.columns;
  float v[kLadderColumns / kWarp], mean = 0.0f, square = 0.0f;
  EVERGRAD_UNROLL
  for (int i = 0; i < kLadderColumns / kWarp; ++i) {
    const int c = i * kWarp + lane;
    v[i] = c < p.columns ? float(x[c]) : 0.0f;
    mean += v[i];
  }
  mean = warp_sum(mean) / float(p.columns);
  EVERGRAD_UNROLL
  for (int i = 0; i < kLadderColumns / kWarp; ++i)
    if (i * kWarp + lane < p.columns) square += (v[i] - mean) * (v[i] - mean);
  const float rstd = 1.0f / sqrtf(warp_sum(square) / float(p.columns) + p.eps);
  EVERGRAD_UNROLL
  for (int i = 0; i < kLadderColumns / kWarp; ++i) {
    const int c = i * kWarp + lane;
    if (c < p.columns) p.y[std::int64_t(row) * p.columns + c] = to_bf16(normalised(p, v[i], mean, rstd, c));
  }
  if (lane == 0) p.mean[row] = mean, p.rstd[row] = rstd;
}

}  // namespace

void (*norm_by_thread())(LadderNorm) { return &by_thread_device; }
void (*norm_by_warp())(LadderNorm) { return &by_warp_device; }
void (*norm_in_registers())(LadderNorm) { return &in_registers_device; }

}  // namespace eg::EVERGRAD_BACKEND
