// cuda/kernels/matmul_epilogue.cuh - what happens to a finished sum of a matrix product on its way to memory.
#pragma once
#include "cuda/kernels/gelu.cuh"
#include "cuda/kernels/matmul.h"

namespace eg::EVERGRAD_BACKEND {

/// The value that goes into c (before accumulation) for sum s at row i, column j; stores aux on the way.
__device__ __forceinline__ float finish_value(const MatmulParams& p, float s, std::int64_t i, std::int64_t j) {
  if (p.end == MatmulEnd::none) return s;
  if (p.end == MatmulEnd::dgelu) {
    const float z = load_at(p.aux, i * p.cols + j);
    return s * (p.tanh_form ? gelu_grad<true>(z) : gelu_grad<false>(z));
  }
  const float z = s + load_at(p.bias, j);
  if (p.end == MatmulEnd::bias) return z;
  store_at(p.aux, i * p.cols + j, z);
  return p.tanh_form ? gelu<true>(z) : gelu<false>(z);
}

/// Finishes and stores one element of split `split`; returns the value, for column sums.
__device__ __forceinline__ float finish_element(const MatmulParams& p, float s, std::int64_t i, std::int64_t j,
                                                std::int64_t split) {
  const std::int64_t at = i * p.cols + j;
  if (p.split_sums) {
    p.split_sums[split * p.rows * p.cols + at] = s;
    return 0.0f;
  }
  const float value = finish_value(p, s, i, j);
  store_at(p.c, at, p.accumulate ? load_at(p.c, at) + value : value);
  return value;
}

/// The same for eight neighbours of row i from column j on, or the `count` that exist; leaves the finished values in s.
__device__ __forceinline__ void finish_pack(const MatmulParams& p, float (&s)[kPack], std::int64_t i, std::int64_t j,
                                            int count, std::int64_t split) {
  const std::int64_t at = i * p.cols + j;
  if (p.split_sums) return store_some({p.split_sums + split * p.rows * p.cols, DType::f32}, at, count, p.wide, s);
  if (p.end == MatmulEnd::dgelu) {
    float z[kPack];
    load_some(p.aux, at, count, p.wide, z);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) s[k] *= p.tanh_form ? gelu_grad<true>(z[k]) : gelu_grad<false>(z[k]);
  } else if (p.end != MatmulEnd::none) {
    float bias[kPack];
    load_some(p.bias, j, count, p.wide, bias);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) s[k] += bias[k];
    if (p.end == MatmulEnd::bias_gelu) {
      store_some(p.aux, at, count, p.wide, s);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) s[k] = p.tanh_form ? gelu<true>(s[k]) : gelu<false>(s[k]);
    }
  }
  if (!p.accumulate) return store_some(p.c, at, count, p.wide, s);
  float old[kPack];
  load_some(p.c, at, count, p.wide, old);
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) old[k] += s[k];
  store_some(p.c, at, count, p.wide, old);
}

/// Steps of the depth that a split works on.
struct DepthRange {
  std::int64_t begin, end;
};
__device__ __forceinline__ DepthRange depth_of(const MatmulParams& p, int step) {
  const std::int64_t steps = (p.depth + step - 1) / step, splits = gridDim.z, split = blockIdx.z;
  return {steps * split / splits, steps * (split + 1) / splits};
}

}  // namespace eg::EVERGRAD_BACKEND
