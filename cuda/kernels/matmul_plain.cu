// cuda/kernels/matmul_plain.cu - matrix products without tensor cores: fp32, and bf16 that is not aligned.
//
// Math     as matmul.cu
// Traffic  a 64 x 64 tile of c reads 128 K values
// Work     2 M N K FLOP as fp32 multiply-adds, of whole tiles: rows and columns are rounded up to 64, the depth to 16
// Mapping  256 threads own 4 x 4 outputs each; steps of 16 along K pass through shared memory as fp32, transposed so
//          that a thread's four values of a and of b are neighbours
// Limits   none: any size, alignment, type
#include "cuda/kernels/matmul.h"
#include "cuda/kernels/matmul_epilogue.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr int kTile = 64, kStep = 16, kThreads = 256, kOwn = 4;

struct Tiles {
  float a[kStep][kTile + 4], b[kStep][kTile + 4];  // 4 more: neighbouring k lie in other banks
};
struct ColumnSums {
  float v[kTile / kOwn][kTile];
};

__device__ __forceinline__ void load_tiles(const MatmulParams& p, Tiles& s, std::int64_t row, std::int64_t col,
                                           std::int64_t k0) {
  EVERGRAD_UNROLL
  for (int n = int(threadIdx.x); n < kTile * kStep; n += kThreads) {
    // Neighbouring threads read neighbouring memory in whichever way the operand is stored.
    const int ka = p.transpose_a ? n / kTile : n % kStep, r = p.transpose_a ? n % kTile : n / kStep;
    const int kb = p.transpose_b ? n % kStep : n / kTile, c = p.transpose_b ? n / kStep : n % kTile;
    const std::int64_t i = row + r, j = col + c, k = k0 + ka, l = k0 + kb;
    s.a[ka][r] = i < p.rows && k < p.depth ? load_at(p.a, p.transpose_a ? k * p.rows + i : i * p.depth + k) : 0.0f;
    s.b[kb][c] = j < p.cols && l < p.depth ? load_at(p.b, p.transpose_b ? j * p.depth + l : l * p.cols + j) : 0.0f;
  }
}

__global__ void __launch_bounds__(kThreads) matmul_plain_device(const MatmulParams p) {
  Tiles& s = static_shared<Tiles>();
  const int x = int(threadIdx.x) % (kTile / kOwn) * kOwn, y = int(threadIdx.x) / (kTile / kOwn) * kOwn;
  const std::int64_t tiles_across = (p.cols + kTile - 1) / kTile;
  const std::int64_t row = std::int64_t(blockIdx.x) / tiles_across * kTile,
                     col = std::int64_t(blockIdx.x) % tiles_across * kTile;
  const DepthRange depth = depth_of(p, kStep);
  float d[kOwn][kOwn] = {};
  for (std::int64_t step = depth.begin; step < depth.end; ++step) {
    load_tiles(p, s, row, col, step * kStep);
    __syncthreads();
    EVERGRAD_UNROLL
    for (int k = 0; k < kStep; ++k) {
      float a[kOwn], b[kOwn];
      EVERGRAD_UNROLL
      for (int i = 0; i < kOwn; ++i) a[i] = s.a[k][y + i], b[i] = s.b[k][x + i];
      EVERGRAD_UNROLL
      for (int i = 0; i < kOwn; ++i) {
        EVERGRAD_UNROLL
        for (int j = 0; j < kOwn; ++j) d[i][j] += a[i] * b[j];
      }
    }
    __syncthreads();
  }
  float sums[kOwn] = {};
  EVERGRAD_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    EVERGRAD_UNROLL
    for (int j = 0; j < kOwn; ++j)
      if (row + y + i < p.rows && col + x + j < p.cols)
        sums[j] += finish_element(p, d[i][j], row + y + i, col + x + j, blockIdx.z);
  }
  if (!p.column_sums) return;
  ColumnSums& shared = static_shared<ColumnSums>();
  EVERGRAD_UNROLL
  for (int j = 0; j < kOwn; ++j) shared.v[y / kOwn][x + j] = sums[j];
  __syncthreads();
  const int c = int(threadIdx.x);
  if (c >= kTile || col + c >= p.cols) return;
  float sum = 0.0f;
  for (int w = 0; w < kTile / kOwn; ++w) sum += shared.v[w][c];
  p.column_sums[row / kTile * p.cols + col + c] = sum;
}

}  // namespace

MatmulKernel matmul_plain_kernel() { return &matmul_plain_device; }

}  // namespace eg::EVERGRAD_BACKEND
