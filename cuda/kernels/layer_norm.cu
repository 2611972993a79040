// cuda/kernels/layer_norm.cu - layer norm over the last axis (Ba, Kiros, Hinton 2016, arXiv:1607.06450), fused with the
// residual sum before it.
//
// Math     s = x + residual, m = mean(s), r = 1 / sqrt(mean((s - m)^2) + eps), h = (s - m) r, y = h gamma + beta
//          g = dy gamma, ds = r (g - mean(g) - h mean(g h)) + dsum, dgamma = sum dy h, dbeta = sum dy
// Shapes   x, residual, sum, y and their gradients [rows, C]; gamma, beta [C]; mean, rstd [rows] fp32
// Traffic  forward x, residual, sum, y once; backward dy, dsum, x, dx once: 8 bytes an element in bf16 each way. ViT-B,
//          batch 256: 50,432 x 768 elements, 310 MB, at best 0.10 ms at 3.0 TB/s
// Work     9 and 14 FLOP an element: bound by memory
// Mapping  up to 1024 columns a warp has a row, beyond that a block of 256; the row stays in registers, in packs of 8
//          per thread, all of them requested before the first is used. The variance is a second pass over registers,
//          not E[s^2] - m^2, which cancels. Backward walks over rows with the column sums in registers; a block leaves
//          one partial row of each, and finish_sections adds these in order: the same bits on every run.
// Limits   one type for all arrays, 16-byte aligned, C a multiple of 8 up to 2048; layer_norm_any.cu does the rest
#include "cuda/kernels/layer_norm.cuh"

#include "cuda/kernels/layer_norm.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// x + residual, rounded as `sum` stores it: the backward pass reads that again, so statistics must be of that.
template <int kLanes, class T, int kPacks>
__device__ __forceinline__ void load_sum(const LayerNormFwdParams& p, std::int64_t first, int lane,
                                         Pack<T> (&s)[kPacks]) {
  Pack<T> other[kPacks] = {};
  load_row<kLanes>(p.x, first, lane, p.columns, s);
  load_row<kLanes>(p.residual, first, lane, p.columns, other);
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    const int c = column_of<kLanes>(q, lane);
    if (!p.residual.data || c >= p.columns) continue;
    float a[kPack], b[kPack];
    unpack(s[q], a), unpack(other[q], b);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) a[k] += b[k];
    pack(a, s[q]);
    store_raw(p.sum, first + c, s[q]);
  }
}

template <class T, int kPacks, int kLanes>
__global__ void __launch_bounds__(norm_threads(kLanes)) layer_norm_fwd_device(const LayerNormFwdParams p) {
  const std::int64_t row = std::int64_t(blockIdx.x) * (norm_threads(kLanes) / kLanes) + threadIdx.x / kLanes;
  if (row >= p.rows) return;
  const int lane = int(threadIdx.x % kLanes);
  const std::int64_t first = row * p.columns;
  Pack<T> raw[kPacks];
  load_sum<kLanes>(p, first, lane, raw);
  float v[kPacks][kPack];
  float sum = 0.0f, square = 0.0f;
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    unpack(raw[q], v[q]);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) sum += v[q][k];
  }
  const float mean = row_sum<kLanes>(sum) / float(p.columns);
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    if (column_of<kLanes>(q, lane) >= p.columns) continue;
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) square += (v[q][k] - mean) * (v[q][k] - mean);
  }
  const float rstd = 1.0f / sqrtf(row_sum<kLanes>(square) / float(p.columns) + p.eps);
  if (lane == 0) p.mean[row] = mean, p.rstd[row] = rstd;
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    const int c = column_of<kLanes>(q, lane);
    if (c >= p.columns) continue;
    float gamma[kPack], beta[kPack];
    unpack(load_raw<T>(p.gamma, c), gamma), unpack(load_raw<T>(p.beta, c), beta);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) v[q][k] = (v[q][k] - mean) * rstd * gamma[k] + beta[k];
    pack(v[q], raw[q]);
    store_raw(p.y, first + c, raw[q]);
  }
}

/// What a thread of the backward pass keeps over all its rows: column sums of dy h and of dy.
template <int kPacks>
struct ColumnSums {
  float gamma[kPacks][kPack], beta[kPacks][kPack];
};

/// The row in two passes over what was loaded: h and g are made twice, which is cheaper than the registers to keep
/// them.
template <class T, int kPacks, int kLanes>
__device__ __forceinline__ void norm_gradient_of_row(const LayerNormBwdParams& p, std::int64_t row, int lane,
                                                     ColumnSums<kPacks>& sums) {
  const std::int64_t first = row * p.columns;
  Pack<T> dy[kPacks], x[kPacks], other[kPacks] = {};
  load_row<kLanes>(p.dy, first, lane, p.columns, dy);
  load_row<kLanes>(p.x, first, lane, p.columns, x);
  load_row<kLanes>(p.dsum, first, lane, p.columns, other);
  const float mean = p.mean[row], rstd = p.rstd[row];
  float sum_g = 0.0f, sum_gh = 0.0f;
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    const int c = column_of<kLanes>(q, lane);
    if (c >= p.columns) continue;
    float d[kPack], h[kPack], gamma[kPack];
    unpack(dy[q], d), unpack(x[q], h), unpack(load_raw<T>(p.gamma, c), gamma);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      const float normal = (h[k] - mean) * rstd, g = d[k] * gamma[k];
      sums.gamma[q][k] += d[k] * normal, sums.beta[q][k] += d[k];
      sum_g += g, sum_gh += g * normal;
    }
  }
  const float mean_g = row_sum<kLanes>(sum_g) / float(p.columns), mean_gh = row_sum<kLanes>(sum_gh) / float(p.columns);
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    const int c = column_of<kLanes>(q, lane);
    if (c >= p.columns) continue;
    float d[kPack], h[kPack], gamma[kPack], add[kPack], old[kPack] = {};
    unpack(dy[q], d), unpack(x[q], h), unpack(load_raw<T>(p.gamma, c), gamma), unpack(other[q], add);
    if (p.accumulate) unpack(load_raw<T>(p.dx, first + c), old);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k)
      d[k] = old[k] + (rstd * (d[k] * gamma[k] - mean_g - (h[k] - mean) * rstd * mean_gh) + add[k]);
    pack(d, dy[q]);
    store_raw(p.dx, first + c, dy[q]);
  }
}

template <int kPacks, int kRows>
struct NormTile {
  float v[kRows][kPacks * kWarp * kPack];
};

template <class T, int kPacks, int kLanes>
__global__ void __launch_bounds__(norm_threads(kLanes), norm_blocks_at_once(sizeof(T) == 2, kPacks, kLanes > kWarp))
    layer_norm_bwd_device(const LayerNormBwdParams p) {
  constexpr int kRows = norm_threads(kLanes) / kLanes;
  const int lane = int(threadIdx.x % kLanes), own = int(threadIdx.x / kLanes);
  ColumnSums<kPacks> sums = {};
  for (std::int64_t row = std::int64_t(blockIdx.x) * kRows + own; row < p.rows; row += std::int64_t(gridDim.x) * kRows)
    norm_gradient_of_row<T, kPacks, kLanes>(p, row, lane, sums);
  if (!p.partials) return;
  float* const partials = p.partials + std::int64_t(blockIdx.x) * 2 * p.columns;
  if constexpr (kRows == 1) {  // no other row to add
    EVERGRAD_UNROLL
    for (int q = 0; q < kPacks; ++q) {
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) {
        const int c = column_of<kLanes>(q, lane) + k;
        if (c < p.columns) partials[c] = sums.gamma[q][k], partials[p.columns + c] = sums.beta[q][k];
      }
    }
  } else {
    using Tile = NormTile<kPacks, kRows>;
    Tile &gamma = static_shared<Tile, 0>(), &beta = static_shared<Tile, 1>();
    EVERGRAD_UNROLL
    for (int q = 0; q < kPacks; ++q) {
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) {
        const int c = column_of<kLanes>(q, lane) + k;
        gamma.v[own][c] = sums.gamma[q][k], beta.v[own][c] = sums.beta[q][k];
      }
    }
    __syncthreads();
    for (int c = int(threadIdx.x); c < p.columns; c += norm_threads(kLanes)) {
      float sum_gamma = 0.0f, sum_beta = 0.0f;
      for (int w = 0; w < kRows; ++w) sum_gamma += gamma.v[w][c], sum_beta += beta.v[w][c];
      partials[c] = sum_gamma, partials[p.columns + c] = sum_beta;
    }
  }
}

template <class T>
void (*forward_of(NormLayout layout))(LayerNormFwdParams) {
  if (layout.block_per_row) return &layer_norm_fwd_device<T, 1, kNormWide>;
  switch (layout.packs) {
    case 1: return &layer_norm_fwd_device<T, 1, kWarp>;
    case 2: return &layer_norm_fwd_device<T, 2, kWarp>;
    case 3: return &layer_norm_fwd_device<T, 3, kWarp>;
    default: return &layer_norm_fwd_device<T, 4, kWarp>;
  }
}
template <class T>
void (*backward_of(NormLayout layout))(LayerNormBwdParams) {
  if (layout.block_per_row) return &layer_norm_bwd_device<T, 1, kNormWide>;
  switch (layout.packs) {
    case 1: return &layer_norm_bwd_device<T, 1, kWarp>;
    case 2: return &layer_norm_bwd_device<T, 2, kWarp>;
    case 3: return &layer_norm_bwd_device<T, 3, kWarp>;
    default: return &layer_norm_bwd_device<T, 4, kWarp>;
  }
}

}  // namespace

void (*layer_norm_fwd_kernel(NormLayout layout))(LayerNormFwdParams) {
  if (layout.packs == 0) return layer_norm_fwd_any_kernel(layout.block_per_row);
  return layout.type == DType::bf16 ? forward_of<bf16>(layout) : forward_of<float>(layout);
}
void (*layer_norm_bwd_kernel(NormLayout layout))(LayerNormBwdParams) {
  if (layout.packs == 0) return layer_norm_bwd_any_kernel(layout.block_per_row);
  return layout.type == DType::bf16 ? backward_of<bf16>(layout) : backward_of<float>(layout);
}

}  // namespace eg::EVERGRAD_BACKEND
