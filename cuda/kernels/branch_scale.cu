// cuda/kernels/branch_scale.cu - layer scale (Touvron et al. 2021, arXiv:2103.17239) and stochastic depth (Huang et al. 2016,
// arXiv:1603.09382) of one residual branch.
//
// Math     y = x scale[c] mask[b]; dx = dy scale mask; dscale[c] = sum over b, n of dy x mask; mask from Philox
// Traffic  operands once; the gradient of scale reads x and dy once more
// Mapping  packs of 8, grid-stride; dscale in chunks of rows, added in order by finish_columns
#include "cuda/kernels/branch_scale.h"

#include "cuda/kernels/reduce.h"
#include "engine/rng.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

__global__ void __launch_bounds__(256) branch_scale_device(const BranchScaleParams p) {
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    float v[kPack], scale[kPack] = {}, old[kPack] = {};
    load_some(p.x, i, count, wide, v);
    if (p.accumulate) load_some(p.out, i, count, wide, old);
    if (wide && p.scale.data) load_pack(p.scale, i % p.columns, scale);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      if (k >= count) continue;
      float f = 1.0f;
      if (p.scale.data) f = wide ? scale[k] : load_at(p.scale, (i + k) % p.columns);
      if (p.mask) f *= p.mask[(i + k) / p.per_sample];
      v[k] = old[k] + v[k] * f;
    }
    store_some(p.out, i, count, wide, v);
  });
}

struct GradTile {
  float v[kRowLanes][kColumns];
};

__global__ void __launch_bounds__(kColumns* kRowLanes) branch_scale_grad_device(const BranchScaleGradParams p) {
  const std::int64_t c = std::int64_t(blockIdx.x) * kColumns + threadIdx.x, chunks = gridDim.y, chunk = blockIdx.y;
  const std::int64_t end = p.rows * (chunk + 1) / chunks;
  float sum = 0.0f;
  if (c < p.columns)
    for (std::int64_t r = p.rows * chunk / chunks + threadIdx.y; r < end; r += kRowLanes) {
      const float masked = load_at(p.dy, r * p.columns + c) * (p.mask ? p.mask[r / p.rows_per_sample] : 1.0f);
      sum += masked * load_at(p.x, r * p.columns + c);
    }
  GradTile& tile = static_shared<GradTile>();
  tile.v[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= p.columns) return;
  sum = 0.0f;
  for (int lane = 0; lane < kRowLanes; ++lane) sum += tile.v[lane][threadIdx.x];
  p.partials[chunk * p.columns + c] = sum;
}

__global__ void __launch_bounds__(128) drop_mask_device(const DropMaskParams p) {
  const std::int64_t b = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= p.n) return;
  const Key key{p.step->seed, p.stream, std::uint32_t(p.step->step)};
  const bool dropped = key.uniform(std::uint64_t(p.step->first_sample + b)) < p.drop_prob;
  p.mask[b] = dropped ? 0.0f : float(1.0 / (1.0 - p.drop_prob));
}

}  // namespace

void (*branch_scale_kernel())(BranchScaleParams) { return &branch_scale_device; }
void (*branch_scale_grad_kernel())(BranchScaleGradParams) { return &branch_scale_grad_device; }
void (*drop_mask_kernel())(DropMaskParams) { return &drop_mask_device; }

}  // namespace eg::EVERGRAD_BACKEND
