// cuda/kernels/operands.h - from the views of a call to what kernels take.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "cuda/kernels/operand.cuh"
#include "engine/tensor.h"

namespace eg::EVERGRAD_BACKEND {

inline Operand operand(const TensorView& v) { return {v.data, v.dtype}; }

/// True when all present views are f32 or bf16 and 16-byte aligned, so that packs can be read at multiples of 8.
inline bool wide_access(std::initializer_list<const TensorView*> views) {
  for (const TensorView* v : views)
    if (*v && ((v->dtype != DType::f32 && v->dtype != DType::bf16) || reinterpret_cast<std::uintptr_t>(v->data) % 16))
      return false;
  return true;
}

inline constexpr int kStreamThreads = 256;
/// Blocks for a pass over n elements in packs of 8: enough to fill any present GPU, each thread going round a few
/// times.
inline unsigned stream_blocks(std::int64_t n) {
  const std::int64_t packs = (n + kPack - 1) / kPack;
  return unsigned(min_of<std::int64_t>((packs + kStreamThreads - 1) / kStreamThreads, 132 * 8));
}
/// Fewer threads where there is less to do: whole warps.
inline unsigned stream_threads(std::int64_t n) {
  const std::int64_t packs = (n + kPack - 1) / kPack;
  return unsigned(min_of<std::int64_t>((packs + kWarp - 1) / kWarp * kWarp, kStreamThreads));
}

}  // namespace eg::EVERGRAD_BACKEND
