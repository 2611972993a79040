// cuda/kernels/qk_norm_any.cu - layer norm of q and k for vectors that qk_norm.cu does not take: odd or large widths,
// unaligned arrays, several types in one call.
//
// Math     as qk_norm.cu
// Shapes   as in qk_norm.cu
// Traffic  a vector is read from memory once and then again from the cache; the parameter sums read qkv and dout once
//          more
// Work     9 and 14 FLOP an element
// Mapping  a warp per vector; the parameter gradients in chunks of tokens, added in order by finish_sections
// Limits   none
#include "cuda/kernels/layer_norm.h"
#include "cuda/kernels/qk_norm.cuh"
#include "cuda/kernels/reduce.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

struct Vector {
  std::int64_t at, statistic;
  int part;  // 0 q, 1 k, 2 v
};
__device__ __forceinline__ Vector vector_of(const QkNormParams& p, std::int64_t index) {
  const std::int64_t token = index / (3 * p.heads);
  const int part = int(index / p.heads % 3), head = int(index % p.heads);
  return {index * p.width, (token * 2 + part) * p.heads + head, part};
}

// Eight blocks a multiprocessor suffice; for more, ptxas would spill.
__global__ void __launch_bounds__(kNormWarps* kWarp, 8) qk_norm_fwd_any_device(const QkNormParams p) {
  const std::int64_t index = std::int64_t(blockIdx.x) * kNormWarps + threadIdx.x / kWarp;
  if (index >= p.tokens * 3 * p.heads) return;
  const int lane = int(threadIdx.x % kWarp);
  const Vector v = vector_of(p, index);
  if (v.part == 2) {
    for (int d = lane; d < p.width; d += kWarp) store_at(p.out, v.at + d, load_at(p.qkv, v.at + d));
    return;
  }
  float sum = 0.0f, square = 0.0f;
  for (int d = lane; d < p.width; d += kWarp) sum += load_at(p.qkv, v.at + d);
  const float mean = warp_sum(sum) / float(p.width);
  for (int d = lane; d < p.width; d += kWarp) {
    const float x = load_at(p.qkv, v.at + d) - mean;
    square += x * x;
  }
  const float rstd = 1.0f / sqrtf(warp_sum(square) / float(p.width) + p.eps);
  if (lane == 0) p.mean[v.statistic] = mean, p.rstd[v.statistic] = rstd;
  const Operand gamma = chosen(v.part == 0, p.gamma_q, p.gamma_k), beta = chosen(v.part == 0, p.beta_q, p.beta_k);
  for (int d = lane; d < p.width; d += kWarp)
    store_at(p.out, v.at + d, (load_at(p.qkv, v.at + d) - mean) * rstd * load_at(gamma, d) + load_at(beta, d));
}

__device__ __forceinline__ void add_or_store(const QkNormParams& p, std::int64_t i, float x) {
  store_at(p.out, i, p.accumulate ? load_at(p.out, i) + x : x);
}

__global__ void __launch_bounds__(kNormWarps* kWarp) qk_norm_bwd_any_device(const QkNormParams p) {
  const std::int64_t index = std::int64_t(blockIdx.x) * kNormWarps + threadIdx.x / kWarp;
  if (index >= p.tokens * 3 * p.heads) return;
  const int lane = int(threadIdx.x % kWarp);
  const Vector v = vector_of(p, index);
  if (v.part == 2) {
    for (int d = lane; d < p.width; d += kWarp) add_or_store(p, v.at + d, load_at(p.dout, v.at + d));
    return;
  }
  const Operand gamma = chosen(v.part == 0, p.gamma_q, p.gamma_k);
  const float mean = p.mean[v.statistic], rstd = p.rstd[v.statistic];
  float sum_g = 0.0f, sum_gh = 0.0f;
  for (int d = lane; d < p.width; d += kWarp) {
    const float g = load_at(p.dout, v.at + d) * load_at(gamma, d), h = (load_at(p.qkv, v.at + d) - mean) * rstd;
    sum_g += g, sum_gh += g * h;
  }
  const float mean_g = warp_sum(sum_g) / float(p.width), mean_gh = warp_sum(sum_gh) / float(p.width);
  for (int d = lane; d < p.width; d += kWarp) {
    const float g = load_at(p.dout, v.at + d) * load_at(gamma, d), h = (load_at(p.qkv, v.at + d) - mean) * rstd;
    add_or_store(p, v.at + d, rstd * (g - mean_g - h * mean_gh));
  }
}

struct ColumnPair {
  float v[2][kRowLanes][kColumns];
};

// Block (column tile, chunk of tokens, q or k).
__global__ void __launch_bounds__(kColumns* kRowLanes) qk_norm_columns_device(const QkNormParams p) {
  const int d = int(blockIdx.x) * kColumns + int(threadIdx.x), part = int(blockIdx.z);
  const std::int64_t chunks = gridDim.y, chunk = blockIdx.y, rows = p.tokens * p.heads,
                     end = rows * (chunk + 1) / chunks;
  float dgamma = 0.0f, dbeta = 0.0f;
  if (d < p.width)
    for (std::int64_t r = rows * chunk / chunks + threadIdx.y; r < end; r += kRowLanes) {
      const std::int64_t token = r / p.heads, head = r % p.heads;
      const std::int64_t at = ((token * 3 + part) * p.heads + head) * p.width + d,
                         statistic = (token * 2 + part) * p.heads + head;
      const float dy = load_at(p.dout, at);
      dgamma += dy * ((load_at(p.qkv, at) - p.mean[statistic]) * p.rstd[statistic]), dbeta += dy;
    }
  ColumnPair& tile = static_shared<ColumnPair>();
  tile.v[0][threadIdx.y][threadIdx.x] = dgamma, tile.v[1][threadIdx.y][threadIdx.x] = dbeta;
  __syncthreads();
  if (threadIdx.y >= 2 || d >= p.width) return;
  float sum = 0.0f;
  for (int lane = 0; lane < kRowLanes; ++lane) sum += tile.v[threadIdx.y][lane][threadIdx.x];
  p.partials[((chunk * 2 + part) * 2 + threadIdx.y) * p.width + d] = sum;
}

}  // namespace

void (*qk_norm_fwd_any_kernel())(QkNormParams) { return &qk_norm_fwd_any_device; }
void (*qk_norm_bwd_any_kernel())(QkNormParams) { return &qk_norm_bwd_any_device; }
void (*qk_norm_columns_kernel())(QkNormParams) { return &qk_norm_columns_device; }

}  // namespace eg::EVERGRAD_BACKEND
