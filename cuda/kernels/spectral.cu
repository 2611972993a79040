// cuda/kernels/spectral.cu - one step of power iteration and the penalty on the largest singular value (Lewandowski et al.
// 2025, arXiv:2406.06811; methods.md B.6).
//
// Math     as in engine/reference/spectral.cpp
// Shapes   weight, gradient [R,C]; u, next [R]; v [C]
// Traffic  the weight twice, the gradient in and out: 12 to 16 bytes an element
// Work     6 FLOP an element: bound by memory, and for small matrices by its five launches
// Mapping  W^T u: a block per 32 columns, eight threads a column; W v: a block per row; lengths: one block; the gradient:
//          grid-stride
// Order    every sum is over fixed parts in a fixed order: the same bits every time
// Limits   any size; a row is one block, so R is at most 2^31 - 1
#include "cuda/kernels/spectral.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

struct ColumnTile {
  float v[kSpectralLanes][kSpectralColumns];
};

__global__ void __launch_bounds__(kSpectralColumns* kSpectralLanes) columns_device(const SpectralParams p) {
  const std::int64_t c = std::int64_t(blockIdx.x) * kSpectralColumns + threadIdx.x;
  ColumnTile& tile = static_shared<ColumnTile>();
  float sum = 0.0f;
  if (c < p.columns)
    for (std::int64_t r = threadIdx.y; r < p.rows; r += kSpectralLanes) sum += p.weight[r * p.columns + c] * p.u[r];
  tile.v[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= p.columns) return;
  float total = 0.0f;
  EVERGRAD_UNROLL
  for (int lane = 0; lane < kSpectralLanes; ++lane) total += tile.v[lane][threadIdx.x];
  p.v[c] = total;
}

/// The block's view of |x|.
__device__ __forceinline__ double length_of(const float* x, std::int64_t n) {
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < n; i += kSpectralThreads) sum += double(x[i]) * double(x[i]);
  return sqrt(block_sum<kSpectralThreads>(sum));
}

__global__ void __launch_bounds__(kSpectralThreads) unit_device(const SpectralParams p) {
  const double length = length_of(p.v, p.columns);
  if (length == 0.0) return;
  for (std::int64_t c = threadIdx.x; c < p.columns; c += kSpectralThreads) p.v[c] = float(double(p.v[c]) / length);
}

__global__ void __launch_bounds__(kSpectralThreads) rows_device(const SpectralParams p) {
  const std::int64_t r = blockIdx.x;
  float sum = 0.0f;
  for (std::int64_t c = threadIdx.x; c < p.columns; c += kSpectralThreads) sum += p.weight[r * p.columns + c] * p.v[c];
  sum = block_sum<kSpectralThreads>(sum);
  if (threadIdx.x == 0) p.next[r] = sum;
}

__global__ void __launch_bounds__(kSpectralThreads) finish_device(const SpectralParams p) {
  const double sigma = length_of(p.next, p.rows);
  for (std::int64_t r = threadIdx.x; r < p.rows; r += kSpectralThreads)
    p.next[r] = sigma == 0.0 ? p.u[r] : float(double(p.next[r]) / sigma);
  if (threadIdx.x != 0) return;
  const double before = power(sigma, p.k - 1);
  p.sigma[0] = float(sigma);
  p.slope[0] = sigma == 0.0 ? 0.0f : float(2.0 * p.strength * double(p.k) * before * (before * sigma - p.target));
}

__global__ void __launch_bounds__(kSpectralThreads) gradient_device(const SpectralParams p) {
  const float slope = p.slope[0];
  if (slope == 0.0f) return;
  const std::int64_t stride = std::int64_t(gridDim.x) * kSpectralThreads;
  for (std::int64_t i = std::int64_t(blockIdx.x) * kSpectralThreads + threadIdx.x; i < p.rows * p.columns; i += stride)
    store_at(p.grad, i, load_at(p.grad, i) + slope * p.next[i / p.columns] * p.v[i % p.columns]);
}

}  // namespace

void (*spectral_columns_kernel())(SpectralParams) { return &columns_device; }
void (*spectral_unit_kernel())(SpectralParams) { return &unit_device; }
void (*spectral_rows_kernel())(SpectralParams) { return &rows_device; }
void (*spectral_finish_kernel())(SpectralParams) { return &finish_device; }
void (*spectral_gradient_kernel())(SpectralParams) { return &gradient_device; }

}  // namespace eg::EVERGRAD_BACKEND
