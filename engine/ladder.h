// engine/ladder.h - ladders: the same operation by several kernels, from the plain one to the one that trains, one idea
// per rung. For reading and for `evergrad bench --ladder`; a training step never uses them.
#pragma once
#include <span>

#include "engine/kernels.h"

namespace eg {

template <class Args>
struct Rung {
  const char* name;
  const char* idea;  // what this rung does that the one below does not, in one sentence
  void (*run)(const Args&, Stream);
  /// Bytes that the threads ask of memory, caches left out: where the ideas show.
  double (*asked)(const Args&);
};

/// Inputs of a ladder: bf16, 16-byte aligned, widths that are multiples of 8; a head is 16 to 128 wide, a layer norm at
/// most 1024.
struct Ladders {
  std::span<const Rung<Matmul>> matmul;  // c = a b, nothing transposed, no epilogue
  std::span<const Rung<AttentionFwd>> attention;
  std::span<const Rung<LayerNormFwd>> layer_norm;  // without a residual
  /// Multiplies and adds in registers and does nothing else, for the ceiling of arithmetic in `dtype` (bf16 by tensor
  /// cores with fp32 sums, f32 by fused multiply-adds). `out` (f32, a multiple of 128 numbers) gets one number per thread
  /// that takes part. Returns the FLOPs of the call. Throws Error{shape} on anything else.
  double (*arithmetic)(const TensorView& out, DType dtype, int rounds, Stream) = nullptr;
};

}  // namespace eg
