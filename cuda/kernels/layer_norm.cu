// cuda/kernels/layer_norm.cu - layer norm over the last axis (Ba, Kiros, Hinton 2016, arXiv:1607.06450), fused with the residual
// sum before it.
//
// Math     s = x + residual, m = mean(s), r = 1 / sqrt(mean((s - m)^2) + eps), h = (s - m) r, y = h gamma + beta
//          g = dy gamma, ds = r (g - mean(g) - h mean(g h)) + dsum, dgamma = sum dy h, dbeta = sum dy
// Traffic  forward x, residual, sum, y once: 8 bytes an element in bf16; backward dy, dsum, x, dx: 8 bytes
// Work     9 and 14 FLOP an element: bound by memory
// Mapping  a warp per row, the row in registers (packs of 8 per lane) up to 1024 columns; the variance is a second pass over
//          registers, not E[s^2] - m^2, which cancels. Backward warps walk over rows with their column sums in registers; a
//          block leaves one partial row, and finish_columns adds these in order.
// Limits   any width and alignment: beyond 1024 columns, or unaligned, values are read again from the cache
#include "cuda/kernels/layer_norm.h"

#include "cuda/kernels/reduce.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// As the array stores it: the backward pass reads the stored sum, so statistics must be of that.
__device__ __forceinline__ float rounded_as(const Operand& o, float x) { return o.type == DType::bf16 ? float(to_bf16(x)) : x; }

template <int kPacks>
__global__ void __launch_bounds__(kNormWarps* kWarp) layer_norm_fwd_device(const LayerNormFwdParams p) {
  const std::int64_t row = std::int64_t(blockIdx.x) * kNormWarps + threadIdx.x / kWarp;
  if (row >= p.rows) return;
  const int lane = int(threadIdx.x % kWarp);
  const std::int64_t first = row * p.columns;
  float v[kPacks][kPack] = {};
  float sum = 0.0f;
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    const int c = (q * kWarp + lane) * kPack;
    if (c >= p.columns) continue;
    load_pack(p.x, first + c, v[q]);
    if (p.residual.data) {
      float add[kPack];
      load_pack(p.residual, first + c, add);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) v[q][k] = rounded_as(p.sum, v[q][k] + add[k]);
      store_pack(p.sum, first + c, v[q]);
    }
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) sum += v[q][k];
  }
  const float mean = warp_sum(sum) / float(p.columns);
  float square = 0.0f;
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    if ((q * kWarp + lane) * kPack >= p.columns) continue;
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) square += (v[q][k] - mean) * (v[q][k] - mean);
  }
  const float rstd = 1.0f / sqrtf(warp_sum(square) / float(p.columns) + p.eps);
  if (lane == 0) p.mean[row] = mean, p.rstd[row] = rstd;
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    const int c = (q * kWarp + lane) * kPack;
    if (c >= p.columns) continue;
    float gamma[kPack], beta[kPack];
    load_pack(p.gamma, c, gamma), load_pack(p.beta, c, beta);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) v[q][k] = (v[q][k] - mean) * rstd * gamma[k] + beta[k];
    store_pack(p.y, first + c, v[q]);
  }
}

__global__ void __launch_bounds__(kNormWarps* kWarp) layer_norm_fwd_any_device(const LayerNormFwdParams p) {
  const std::int64_t row = std::int64_t(blockIdx.x) * kNormWarps + threadIdx.x / kWarp;
  if (row >= p.rows) return;
  const int lane = int(threadIdx.x % kWarp);
  const std::int64_t first = row * p.columns;
  const Operand& s = p.residual.data ? p.sum : p.x;
  float sum = 0.0f;
  for (int c = lane; c < p.columns; c += kWarp) {
    float v = load_at(p.x, first + c);
    if (p.residual.data) {
      v = rounded_as(p.sum, v + load_at(p.residual, first + c));
      store_at(p.sum, first + c, v);  // read again below by this same lane
    }
    sum += v;
  }
  const float mean = warp_sum(sum) / float(p.columns);
  float square = 0.0f;
  for (int c = lane; c < p.columns; c += kWarp) {
    const float d = load_at(s, first + c) - mean;
    square += d * d;
  }
  const float rstd = 1.0f / sqrtf(warp_sum(square) / float(p.columns) + p.eps);
  if (lane == 0) p.mean[row] = mean, p.rstd[row] = rstd;
  for (int c = lane; c < p.columns; c += kWarp)
    store_at(p.y, first + c, (load_at(s, first + c) - mean) * rstd * load_at(p.gamma, c) + load_at(p.beta, c));
}

template <int kPacks>
struct NormTile {
  float v[kNormWarps][2][kPacks * kWarp * kPack];
};

template <int kPacks>
__global__ void __launch_bounds__(kNormWarps* kWarp) layer_norm_bwd_device(const LayerNormBwdParams p) {
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp);
  float dgamma[kPacks][kPack] = {}, dbeta[kPacks][kPack] = {};
  for (std::int64_t row = std::int64_t(blockIdx.x) * kNormWarps + warp; row < p.rows; row += std::int64_t(gridDim.x) * kNormWarps) {
    const std::int64_t first = row * p.columns;
    const float mean = p.mean[row], rstd = p.rstd[row];
    float g[kPacks][kPack] = {}, h[kPacks][kPack] = {};
    float sum_g = 0.0f, sum_gh = 0.0f;
    EVERGRAD_UNROLL
    for (int q = 0; q < kPacks; ++q) {
      const int c = (q * kWarp + lane) * kPack;
      if (c >= p.columns) continue;
      float gamma[kPack];
      load_pack(p.dy, first + c, g[q]), load_pack(p.x, first + c, h[q]), load_pack(p.gamma, c, gamma);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) {
        h[q][k] = (h[q][k] - mean) * rstd;
        dgamma[q][k] += g[q][k] * h[q][k], dbeta[q][k] += g[q][k];
        g[q][k] *= gamma[k];
        sum_g += g[q][k], sum_gh += g[q][k] * h[q][k];
      }
    }
    const float mean_g = warp_sum(sum_g) / float(p.columns), mean_gh = warp_sum(sum_gh) / float(p.columns);
    EVERGRAD_UNROLL
    for (int q = 0; q < kPacks; ++q) {
      const int c = (q * kWarp + lane) * kPack;
      if (c >= p.columns) continue;
      float other[kPack] = {}, old[kPack] = {};
      if (p.dsum.data) load_pack(p.dsum, first + c, other);
      if (p.accumulate) load_pack(p.dx, first + c, old);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) g[q][k] = old[k] + (rstd * (g[q][k] - mean_g - h[q][k] * mean_gh) + other[k]);
      store_pack(p.dx, first + c, g[q]);
    }
  }
  if (!p.partials) return;
  NormTile<kPacks>& tile = static_shared<NormTile<kPacks>>();
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q)
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      const int c = (q * kWarp + lane) * kPack + k;
      tile.v[warp][0][c] = dgamma[q][k], tile.v[warp][1][c] = dbeta[q][k];
    }
  __syncthreads();
  for (int c = int(threadIdx.x); c < p.columns; c += kNormWarps * kWarp)
    for (int which = 0; which < 2; ++which) {
      float sum = 0.0f;
      for (int w = 0; w < kNormWarps; ++w) sum += tile.v[w][which][c];
      p.partials[(std::int64_t(blockIdx.x) * 2 + which) * p.columns + c] = sum;
    }
}

__global__ void __launch_bounds__(kNormWarps* kWarp) layer_norm_bwd_any_device(const LayerNormBwdParams p) {
  const std::int64_t row = std::int64_t(blockIdx.x) * kNormWarps + threadIdx.x / kWarp;
  if (row >= p.rows) return;
  const int lane = int(threadIdx.x % kWarp);
  const std::int64_t first = row * p.columns;
  const float mean = p.mean[row], rstd = p.rstd[row];
  float sum_g = 0.0f, sum_gh = 0.0f;
  for (int c = lane; c < p.columns; c += kWarp) {
    const float g = load_at(p.dy, first + c) * load_at(p.gamma, c), h = (load_at(p.x, first + c) - mean) * rstd;
    sum_g += g, sum_gh += g * h;
  }
  const float mean_g = warp_sum(sum_g) / float(p.columns), mean_gh = warp_sum(sum_gh) / float(p.columns);
  for (int c = lane; c < p.columns; c += kWarp) {
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

void (*layer_norm_fwd_kernel(int packs))(LayerNormFwdParams) {
  switch (packs) {
    case 1: return &layer_norm_fwd_device<1>;
    case 2: return &layer_norm_fwd_device<2>;
    case 3: return &layer_norm_fwd_device<3>;
    case 4: return &layer_norm_fwd_device<4>;
    default: return &layer_norm_fwd_any_device;
  }
}
void (*layer_norm_bwd_kernel(int packs))(LayerNormBwdParams) {
  switch (packs) {
    case 1: return &layer_norm_bwd_device<1>;
    case 2: return &layer_norm_bwd_device<2>;
    case 3: return &layer_norm_bwd_device<3>;
    case 4: return &layer_norm_bwd_device<4>;
    default: return &layer_norm_bwd_any_device;
  }
}
void (*layer_norm_columns_kernel())(LayerNormBwdParams) { return &layer_norm_columns_device; }

}  // namespace eg::EVERGRAD_BACKEND
