// cuda/kernels/layer_norm_any.cu - layer norm of rows that layer_norm.cu does not take: odd widths, unaligned arrays,
// several types in one call, more than 2048 columns.
//
// Math     as layer_norm.cu
// Shapes   as in layer_norm.cu
// Traffic  a row is read from memory once and then again from the cache: twice more forward, once more backward; the
//          parameter sums read x and dy once more
// Work     9 and 14 FLOP an element
// Mapping  a warp per row up to 1024 columns, then a block of 256; a lane takes every 32nd (256th) column. Parameter
//          sums: a block owns 32 columns of one chunk of rows, and finish_sections adds the chunks in order
// Limits   none
#include "cuda/kernels/layer_norm.cuh"

#include "cuda/kernels/layer_norm.h"
#include "cuda/kernels/reduce.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// As the array stores it: the backward pass reads the stored sum, so statistics must be of that.
__device__ __forceinline__ float rounded_as(DType type, float x) { return type == DType::bf16 ? float(to_bf16(x)) : x; }

template <int kLanes>
__global__ void __launch_bounds__(norm_threads(kLanes)) layer_norm_fwd_any_device(const LayerNormFwdParams p) {
  const std::int64_t row = std::int64_t(blockIdx.x) * (norm_threads(kLanes) / kLanes) + threadIdx.x / kLanes;
  if (row >= p.rows) return;
  const int lane = int(threadIdx.x % kLanes);
  const std::int64_t first = row * p.columns;
  const bool adds = p.residual.data != nullptr;
  const Operand s = {adds ? p.sum.data : p.x.data, adds ? p.sum.type : p.x.type};
  float sum = 0.0f;
  for (int c = lane; c < p.columns; c += kLanes) {
    float v = load_at(p.x, first + c);
    if (adds) {
      v = rounded_as(p.sum.type, v + load_at(p.residual, first + c));
      store_at(p.sum, first + c, v);  // read again below by this same lane
    }
    sum += v;
  }
  const float mean = row_sum<kLanes>(sum) / float(p.columns);
  float square = 0.0f;
  for (int c = lane; c < p.columns; c += kLanes) {
    const float d = load_at(s, first + c) - mean;
    square += d * d;
  }
  const float rstd = 1.0f / sqrtf(row_sum<kLanes>(square) / float(p.columns) + p.eps);
  if (lane == 0) p.mean[row] = mean, p.rstd[row] = rstd;
  for (int c = lane; c < p.columns; c += kLanes)
    store_at(p.y, first + c, (load_at(s, first + c) - mean) * rstd * load_at(p.gamma, c) + load_at(p.beta, c));
}

template <int kLanes>
__global__ void __launch_bounds__(norm_threads(kLanes)) layer_norm_bwd_any_device(const LayerNormBwdParams p) {
  const std::int64_t row = std::int64_t(blockIdx.x) * (norm_threads(kLanes) / kLanes) + threadIdx.x / kLanes;
  if (row >= p.rows) return;
  const int lane = int(threadIdx.x % kLanes);
  const std::int64_t first = row * p.columns;
  const float mean = p.mean[row], rstd = p.rstd[row];
  float sum_g = 0.0f, sum_gh = 0.0f;
  for (int c = lane; c < p.columns; c += kLanes) {
    const float g = load_at(p.dy, first + c) * load_at(p.gamma, c), h = (load_at(p.x, first + c) - mean) * rstd;
    sum_g += g, sum_gh += g * h;
  }
  const float mean_g = row_sum<kLanes>(sum_g) / float(p.columns), mean_gh = row_sum<kLanes>(sum_gh) / float(p.columns);
  for (int c = lane; c < p.columns; c += kLanes) {
    const float g = load_at(p.dy, first + c) * load_at(p.gamma, c), h = (load_at(p.x, first + c) - mean) * rstd;
    float d = rstd * (g - mean_g - h * mean_gh);
    if (p.dsum.data) d += load_at(p.dsum, first + c);
    store_at(p.dx, first + c, p.accumulate ? load_at(p.dx, first + c) + d : d);
  }
}

struct ColumnPair {
  float v[2][kRowLanes][kColumns];
};

__global__ void __launch_bounds__(kColumns* kRowLanes) layer_norm_columns_device(const LayerNormBwdParams p) {
  const int c = int(blockIdx.x) * kColumns + int(threadIdx.x);
  const std::int64_t chunks = gridDim.y, chunk = blockIdx.y, end = p.rows * (chunk + 1) / chunks;
  float dgamma = 0.0f, dbeta = 0.0f;
  if (c < p.columns)
    for (std::int64_t r = p.rows * chunk / chunks + threadIdx.y; r < end; r += kRowLanes) {
      const float dy = load_at(p.dy, r * p.columns + c);
      dgamma += dy * ((load_at(p.x, r * p.columns + c) - p.mean[r]) * p.rstd[r]), dbeta += dy;
    }
  ColumnPair& tile = static_shared<ColumnPair>();
  tile.v[0][threadIdx.y][threadIdx.x] = dgamma, tile.v[1][threadIdx.y][threadIdx.x] = dbeta;
  __syncthreads();
  if (threadIdx.y >= 2 || c >= p.columns) return;
  float sum = 0.0f;
  for (int lane = 0; lane < kRowLanes; ++lane) sum += tile.v[threadIdx.y][lane][threadIdx.x];
  p.partials[(chunk * 2 + threadIdx.y) * p.columns + c] = sum;
}

}  // namespace

void (*layer_norm_fwd_any_kernel(bool block_per_row))(LayerNormFwdParams) {
  return block_per_row ? &layer_norm_fwd_any_device<kNormWide> : &layer_norm_fwd_any_device<kWarp>;
}
void (*layer_norm_bwd_any_kernel(bool block_per_row))(LayerNormBwdParams) {
  return block_per_row ? &layer_norm_bwd_any_device<kNormWide> : &layer_norm_bwd_any_device<kWarp>;
}
void (*layer_norm_columns_kernel())(LayerNormBwdParams) { return &layer_norm_columns_device; }

}  // namespace eg::EVERGRAD_BACKEND
