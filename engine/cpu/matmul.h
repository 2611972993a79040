// engine/cpu/matmul.h - the parts of the matrix product: operands, register kernels, epilogues, and the paths that
// combine them.
//
// One product is: pack op(b) into panels of `nr` columns, then, per block of rows, pack op(a) into slivers of `mr` rows
// and multiply sliver by panel in registers (Goto and van de Geijn 2008, "Anatomy of high-performance matrix
// multiplication"). A kernel works on 32-bit words: one fp32 number, or two neighbouring bf16 numbers of the sum.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/kernels.h"

namespace eg::cpu {

/// One operand, seen as width x depth, where depth is the axis of the sum: element (w, k) is data[w * stride + k] when
/// depth_contiguous, else data[k * stride + w].
struct Operand {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t stride = 0;
  bool depth_contiguous = true;
};

/// A part of an operand to pack: `width` (at most the panel's) from w0, `depth` elements from k0, padded with zeros to
/// `words` words.
struct PackRange {
  std::int64_t w0 = 0, width = 0, k0 = 0, depth = 0, words = 0;
};
/// sums, when given, receives += the sum over depth of each of the `width` columns (operands that are not
/// depth_contiguous only).
using PackFn = void (*)(const Operand&, const PackRange&, float* out, float* sums);

/// Rows of a packed sliver of `a` are kSliverStride words apart: an odd number of cache lines, so that they fall into
/// different sets, and at most kDepthBlock words are in use.
inline constexpr std::int64_t kDepthBlock = 384, kSliverStride = kDepthBlock + 16;

/// tile[mr, nr] (+)= sliver * panel over `words` words.
using TileFn = void (*)(std::int64_t words, const float* a, const float* b, float* tile, bool overwrite);

/// A register kernel. Slivers of `a` are stored row by row when `a` is depth_contiguous, else word by word.
struct TileKernel {
  int mr = 0, nr = 0;
  int elements_per_word = 1;  // 2: pairs of bf16
  int word_multiple = 1;      // words are padded with zeros to a multiple of this
  TileFn by_rows = nullptr, by_words = nullptr;
  PackFn pack_rows = nullptr, pack_words = nullptr, pack_panel = nullptr;
  void (*begin)() = nullptr;  // on the calling thread, around any number of tiles; may be null
  void (*end)() = nullptr;
};

/// A finished part of a b in fp32, still in the innermost cache.
struct FinishedTile {
  const float* data = nullptr;
  std::int64_t stride = 0, row = 0, col = 0, rows = 0, cols = 0;
  float* column_sums = nullptr;  // [N], += for dgelu with bias_grad
};
/// Applies the epilogue of `m` and stores into m.c.
using EpilogueFn = void (*)(const Matmul& m, const FinishedTile& tile);
/// The epilogue of `m` for the instruction set in use (isa.h).
EpilogueFn choose_epilogue(const Matmul& m);

/// How a product is computed. `blas` is OpenBLAS on slices; `dot` is vdpbf16ps, `amx` tdpbf16ps, both for bf16 only;
/// the other three convert bf16 to fp32 while packing.
enum class MatmulPath { generic, avx2, avx512, blas, dot, amx };
const char* to_string(MatmulPath path);
/// The path that matmul() takes for operands of this type on this machine.
MatmulPath matmul_path(DType operands);
/// All that this build and machine can run, for tests and comparisons.
std::vector<MatmulPath> matmul_paths(DType operands);
/// matmul() on a given path; throws Error{device} when it is not one of matmul_paths().
void matmul_on(MatmulPath path, const Matmul& m);

/// Rows, columns and depth of a product, and its operands. Throws Error{shape} or Error{dtype} on what does not fit.
struct MatmulPlan {
  std::int64_t rows = 0, cols = 0, depth = 0;
  Operand a, b;
  explicit MatmulPlan(const Matmul& m);
};
void run_tiled(const Matmul& m, const MatmulPlan& plan, const TileKernel& kernel, EpilogueFn epilogue);
/// Adds `count` partial rows of `width` floats in order into a bias gradient (stored as f32 or bf16).
void finish_bias_grad(const Matmul& m, const float* partials, std::int64_t count, std::int64_t width);

#if defined(EVERGRAD_HAVE_OPENBLAS)
void run_blas(const Matmul& m, const MatmulPlan& plan, EpilogueFn epilogue);
#endif
#if defined(__x86_64__)
const TileKernel& dot_kernel();
const TileKernel& amx_kernel();
#endif

}  // namespace eg::cpu
