// cuda/kernels/spectral.h - parameters of spectral.cu.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

inline constexpr int kSpectralColumns = 32, kSpectralLanes = 8;  // a block's columns, and threads that share one
inline constexpr int kSpectralThreads = 256;
struct SpectralParams {
  Operand grad;
  const float *weight, *u;
  float *next, *v, *sigma, *slope;  // slope: scratch [1], what next v^T is multiplied by
  std::int64_t rows, columns;
  double strength, target;
  int k;
};
/// In this order: v before its scaling, v, next before its scaling, next and sigma and slope, the gradient.
void (*spectral_columns_kernel())(SpectralParams);
void (*spectral_unit_kernel())(SpectralParams);
void (*spectral_rows_kernel())(SpectralParams);
void (*spectral_finish_kernel())(SpectralParams);
void (*spectral_gradient_kernel())(SpectralParams);

}  // namespace eg::EVERGRAD_BACKEND
