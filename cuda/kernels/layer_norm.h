// cuda/kernels/layer_norm.h - parameters of layer_norm.cu and qk_norm.cu.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

struct LayerNormFwdParams {
  Operand x, residual, sum, gamma, beta, y;
  float *mean, *rstd;
  std::int64_t rows;
  int columns;
  float eps;
};
struct LayerNormBwdParams {
  Operand dy, dsum, x, gamma, dx;
  const float *mean, *rstd;
  float* partials;  // [blocks, 2, columns]: sums of dy h, then of dy; null: not wanted, or by the column kernel
  std::int64_t rows;
  int columns;
  bool accumulate;
};
inline constexpr int kNormWarps = 4;     // rows that a block works on at once
inline constexpr int kNormMaxPacks = 4;  // up to 1024 columns stay in registers
inline constexpr int kNormBlocks = 264;  // of the backward pass; two a multiprocessor of an H100
/// packs == 0: any width and alignment, values are read again where they are needed.
void (*layer_norm_fwd_kernel(int packs))(LayerNormFwdParams);
void (*layer_norm_bwd_kernel(int packs))(LayerNormBwdParams);
/// The parameter sums alone: block (c / 32, chunk) of 32 x 8 threads writes partials[chunk].
void (*layer_norm_columns_kernel())(LayerNormBwdParams);

struct QkNormParams {
  Operand qkv, gamma_q, beta_q, gamma_k, beta_k, out;  // backward: out is dqkv
  Operand dout;
  float *mean, *rstd;
  float* partials;  // [chunks, 2 (q, k), 2 (gamma, beta), width]
  std::int64_t tokens;
  int heads, width;
  float eps;
  bool accumulate;
};
void (*qk_norm_fwd_kernel())(QkNormParams);
void (*qk_norm_bwd_kernel())(QkNormParams);
void (*qk_norm_columns_kernel())(QkNormParams);

}  // namespace eg::EVERGRAD_BACKEND
