// cuda/kernels/branch_scale.h - parameters of branch_scale.cu.
#pragma once
#include "cuda/kernels/operand.cuh"
#include "engine/records.h"

namespace eg::EVERGRAD_BACKEND {

struct BranchScaleParams {
  Operand x, scale, out;  // out (+)= x scale[c] mask[b]
  const float* mask;
  std::int64_t n, columns, per_sample;
  bool accumulate, wide;
};
/// partials[chunk, c] = sum over the chunk's rows of dy mask x; a second stage adds the chunks.
struct BranchScaleGradParams {
  Operand x, dy;
  const float* mask;
  float* partials;
  std::int64_t rows, columns, rows_per_sample;
};
struct DropMaskParams {
  float* mask;
  const StepRecord* step;
  std::int64_t n;
  double drop_prob;
  std::uint32_t stream;
};
void (*branch_scale_kernel())(BranchScaleParams);
/// wide: x and dy both hold `type` and can be read in packs.
void (*branch_scale_grad_kernel(bool wide, DType type))(BranchScaleGradParams);
void (*drop_mask_kernel())(DropMaskParams);

}  // namespace eg::EVERGRAD_BACKEND
