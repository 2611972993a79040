// engine/cpu/normal.h - standard normals in fp32, for passes over the weights that add noise.
#pragma once
#include <cmath>

#include "engine/rng.h"

namespace eg::cpu {

/// Key::normal in fp32: the logarithm and the cosine are what a noisy pass spends its time on.
inline float normal(const Key& k, std::int64_t index) {
  const std::uint64_t i = 2 * std::uint64_t(index), block = i / 4;
  const Philox4 words = philox4x32_10({std::uint32_t(block), std::uint32_t(block >> 32), k.step, k.stream},
                                      std::uint32_t(k.seed), std::uint32_t(k.seed >> 32));
  const auto uniform = [](std::uint32_t bits) { return (float(bits >> 8) + 0.5f) * 0x1p-24f; };
  const float u = uniform(words[i % 4]), v = uniform(words[i % 4 + 1]);
  return std::sqrt(-2.0f * std::log(u)) * std::cos(6.28318531f * v);
}

}  // namespace eg::cpu
