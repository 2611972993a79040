// cuda/kernels/branch_scale.cu - layer scale (Touvron et al. 2021, arXiv:2103.17239) and stochastic depth (Huang et al.
// 2016, arXiv:1603.09382) of one residual branch.
//
// Math     y = x scale[c] mask[b]; dx = dy scale mask; dscale[c] = sum over b, n of dy x mask; mask from Philox
// Shapes   x, y, dx, dy [B,...,C]; scale, dscale [C]; mask [B] fp32
// Traffic  operands once; the gradient of scale reads x and dy once more
// Work     2 FLOP an element: bound by memory
// Mapping  packs of 8, grid-stride; dscale in chunks of rows, added in order by finish_columns
// Limits   any size and alignment; what cannot be read in packs goes element by element
#include "cuda/kernels/branch_scale.h"

#include "cuda/kernels/reduce.cuh"
#include "engine/rng.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

__device__ __forceinline__ float factor_at(const BranchScaleParams& p, std::int64_t i) {
  const float f = p.scale.data ? load_at(p.scale, i % p.columns) : 1.0f;
  return p.mask ? f * p.mask[i / p.per_sample] : f;
}

__global__ void __launch_bounds__(256) branch_scale_device(const BranchScaleParams p) {
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    float v[kPack], f[kPack] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f}, old[kPack] = {};
    load_some(p.x, i, count, wide, v);
    if (p.accumulate) load_some(p.out, i, count, wide, old);
    if (wide) {  // the width is a multiple of 8: a pack lies in one row, so in one sample
      if (p.scale.data) load_pack(p.scale, i % p.columns, f);
      const float mask = p.mask ? p.mask[i / p.per_sample] : 1.0f;
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) f[k] *= mask;
    } else {
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k)
        if (k < count) f[k] = factor_at(p, i + k);
    }
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) v[k] = old[k] + v[k] * f[k];
    store_some(p.out, i, count, wide, v);
  });
}

__device__ __forceinline__ float mask_of_row(const BranchScaleGradParams& p, std::int64_t r) {
  return p.mask ? p.mask[r / p.rows_per_sample] : 1.0f;
}

template <class T>
__global__ void __launch_bounds__(kColumns* kRowLanes) branch_scale_grad_wide_device(const BranchScaleGradParams p) {
  sum_chunk<kPack>(
      p.rows, p.columns,
      [&](std::int64_t r, std::int64_t c, float(&sums)[kPack]) {
        float x[kPack], dy[kPack];
        const Pack<T> raw_x = load_raw<T>(p.x, r * p.columns + c), raw_dy = load_raw<T>(p.dy, r * p.columns + c);
        const float mask = mask_of_row(p, r);
        unpack(raw_x, x), unpack(raw_dy, dy);
        EVERGRAD_UNROLL
        for (int k = 0; k < kPack; ++k) sums[k] += dy[k] * mask * x[k];
      },
      [&](std::int64_t c, float sum) { p.partials[std::int64_t(blockIdx.y) * p.columns + c] = sum; });
}

// Three blocks a multiprocessor suffice; for more, ptxas would spill.
__global__ void __launch_bounds__(kColumns* kRowLanes, 3) branch_scale_grad_device(const BranchScaleGradParams p) {
  sum_chunk<1>(
      p.rows, p.columns,
      [&](std::int64_t r, std::int64_t c, float(&sums)[1]) {
        sums[0] += load_at(p.dy, r * p.columns + c) * mask_of_row(p, r) * load_at(p.x, r * p.columns + c);
      },
      [&](std::int64_t c, float sum) { p.partials[std::int64_t(blockIdx.y) * p.columns + c] = sum; });
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
void (*branch_scale_grad_kernel(bool wide, DType type))(BranchScaleGradParams) {
  if (!wide) return &branch_scale_grad_device;
  return type == DType::bf16 ? &branch_scale_grad_wide_device<bf16> : &branch_scale_grad_wide_device<float>;
}
void (*drop_mask_kernel())(DropMaskParams) { return &drop_mask_device; }

}  // namespace eg::EVERGRAD_BACKEND
