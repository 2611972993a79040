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

/// Tile of a kernel. Its block covers rows x cols of c; grid (row tiles x column tiles, 1, splits). `rate`: FLOP a
/// microsecond that a multiprocessor of an H100 cannot exceed with it (docs/benchmarks/gpu-analysis.md), for comparing.
struct MatmulTile {
  int rows, cols, threads;
  std::size_t shared_bytes;
  double rate;
};
inline constexpr MatmulTile kLargeTile = {128, 128, 256, 3 * (128 + 128) * 32 * 2, 3.74e6};
inline constexpr MatmulTile kSmallTile = {64, 64, 128, 3 * (64 + 64) * 32 * 2, 2.8e6};
inline constexpr MatmulTile kPlainTile = {64, 64, 256, 0, 2.8e6};
inline constexpr MatmulTile kWarpgroupWideTile = {128, 256, 256, 4 * (128 + 256) * 64 * 2 + 1024, 5.98e6};
inline constexpr MatmulTile kWarpgroupTile = {128, 128, 256, 3 * (128 + 128) * 64 * 2 + 1024, 5.98e6};

MatmulKernel matmul_tensor_core_kernel(bool large, bool transpose_a, bool transpose_b);
/// Hopper's warpgroup products; only where warpgroup_products() (kernels.h) says so.
MatmulKernel matmul_warpgroup_kernel(bool wide, bool transpose_a, bool transpose_b);
/// Any types and alignment, fp32 arithmetic.
MatmulKernel matmul_plain_kernel();

}  // namespace eg::EVERGRAD_BACKEND
