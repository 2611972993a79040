// cuda/kernels/layer_norm.h - parameters of layer_norm.cu, layer_norm_any.cu and qk_norm.cu.
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

inline constexpr int kNormWarps = 4;     // rows that a block works on at once, where a warp has a row
inline constexpr int kNormWide = 256;    // threads of a block that has a row for itself
inline constexpr int kNormMaxPacks = 4;  // of one lane of a warp: up to 1024 columns
inline constexpr int kNormNarrow = kNormMaxPacks * kWarp * kPack;
/// Threads of a block, where `lanes` of them share a row.
EVERGRAD_HD constexpr int norm_threads(int lanes) { return lanes == kWarp ? kNormWarps * kWarp : lanes; }
/// Blocks of the backward pass that a multiprocessor holds together, by the registers they need. The pass walks over
/// its rows with one wave of blocks: a second, partly filled one would take as long as the first.
EVERGRAD_HD constexpr int norm_blocks_at_once(bool bf16, int packs, bool block_per_row) {
  if (block_per_row) return 2;
  return packs == 1 ? 5 : (bf16 ? (packs < 4 ? 4 : 3) : (packs < 3 ? 4 : packs < 4 ? 3 : 2));
}
inline constexpr int kNormProcessors =
    132;  // of an H100; others run the same blocks in a little more or less than a wave

/// How a row is spread: over the lanes of a warp or the threads of a block, in `packs` packs each, kept in registers.
/// packs == 0: any width, alignment and mixture of types; values are read again where they are needed.
struct NormLayout {
  DType type;  // of every array, where packs > 0
  int packs;
  bool block_per_row;
};
void (*layer_norm_fwd_kernel(NormLayout layout))(LayerNormFwdParams);
void (*layer_norm_bwd_kernel(NormLayout layout))(LayerNormBwdParams);
// The same for packs == 0, in layer_norm_any.cu.
void (*layer_norm_fwd_any_kernel(bool block_per_row))(LayerNormFwdParams);
void (*layer_norm_bwd_any_kernel(bool block_per_row))(LayerNormBwdParams);
/// The parameter sums alone: block (c / 32, chunk) of 32 x 8 threads writes partials[chunk].
void (*layer_norm_columns_kernel())(LayerNormBwdParams);

struct QkNormParams {
  Operand qkv, gamma_q, beta_q, gamma_k, beta_k, out;  // backward: out is dqkv
  Operand dout;
  float *mean, *rstd;
  float* partials;  // [chunks, 2 (q, k), 2 (gamma, beta), width]; null: not wanted
  std::int64_t tokens;
  int heads, width;
  int lanes;  // threads that share a vector: a power of two up to 32
  float eps;
  bool accumulate;
};
inline constexpr int kQkThreads = 256;
/// Vectors in registers: width a multiple of 8 up to 256, every array of `type`.
void (*qk_norm_fwd_kernel(DType type))(QkNormParams);
void (*qk_norm_bwd_kernel(DType type))(QkNormParams);
// Any width, alignment and mixture of types: a warp per vector; the parameter sums come from the columns kernel.
void (*qk_norm_fwd_any_kernel())(QkNormParams);
void (*qk_norm_bwd_any_kernel())(QkNormParams);
void (*qk_norm_columns_kernel())(QkNormParams);

}  // namespace eg::EVERGRAD_BACKEND
