// cuda/kernels/normal.cuh - standard normals in fp32, for passes over the weights that add noise.
#pragma once
#include "cuda/simt.cuh"
#include "engine/rng.h"

namespace eg::EVERGRAD_BACKEND {

#if EVERGRAD_HAS_DEVICE_WORDS

/// Key::normal in fp32.
__device__ __forceinline__ float normal_of(const Key& key, std::int64_t index) {
  const std::uint64_t i = 2 * std::uint64_t(index);
  const float u = (float(key.bits(i) >> 8) + 0.5f) * 0x1p-24f, v = (float(key.bits(i + 1) >> 8) + 0.5f) * 0x1p-24f;
  return sqrtf(-2.0f * logf(u)) * cosf(6.28318531f * v);
}

#endif  // EVERGRAD_HAS_DEVICE_WORDS

}  // namespace eg::EVERGRAD_BACKEND
