// cuda/kernels/matmul.h - parameters of the matrix products.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

enum class MatmulEnd : int {
  none,
  bias,
  bias_gelu,
  dgelu
};  // what follows the product; as Epilogue in engine/kernels.h

struct MatmulParams {
  Operand a, b, c, bias, aux;
  float* split_sums;   // [splits, M, N]: the product alone, when K is split; else null
  float* column_sums;  // [row tiles, N]: sums of the finished values over each tile's rows (dgelu); else null
  float* row_sums;  // [splits x column tiles, M]: parts of the sums of op(a) along the depth (bias_grad_a); else null
  std::int64_t rows, cols, depth;  // M, N, K
  MatmulEnd end;
  bool transpose_a, transpose_b, accumulate, tanh_form;
  bool wide;  // rows of c, aux and bias consist of whole packs, aligned
};
using MatmulKernel = void (*)(MatmulParams);

/// Tile of a tensor-core kernel. Its block covers rows x cols of c; grid (row tiles x column tiles, 1, splits).
struct MatmulTile {
  int rows, cols, threads;
  std::size_t shared_bytes;
};
inline constexpr MatmulTile kLargeTile = {128, 128, 256, 3 * (128 + 128) * 32 * 2};
inline constexpr MatmulTile kSmallTile = {64, 64, 128, 3 * (64 + 64) * 32 * 2};
inline constexpr MatmulTile kPlainTile = {64, 64, 256, 0};

MatmulKernel matmul_tensor_core_kernel(bool large, bool transpose_a, bool transpose_b);
/// Any types and alignment, fp32 arithmetic.
MatmulKernel matmul_plain_kernel();

}  // namespace eg::EVERGRAD_BACKEND
