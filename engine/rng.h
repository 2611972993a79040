// engine/rng.h - Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011), counter-based random numbers shared by every device.
//
// A draw is a pure function of (seed, purpose, name, step, index): no state, no order, the same bits everywhere.
//   key     = the 64-bit run seed
//   counter = { low(index / 4), high(index / 4), step, fnv1a("purpose/name") },  draw = output word (index mod 4)
// For per-sample draws index = global sample number x draws per sample + draw number, so that results do not depend on
// batch size, thread count or number of ranks.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/dtype.h"

namespace eg {

/// Four words. A plain struct, because device compilers do not run std::array's members.
struct Philox4 {
  std::uint32_t word[4];
  EVERGRAD_HD constexpr std::uint32_t& operator[](std::size_t i) { return word[i]; }
  EVERGRAD_HD constexpr const std::uint32_t& operator[](std::size_t i) const { return word[i]; }
  friend constexpr bool operator==(const Philox4&, const Philox4&) = default;
};

EVERGRAD_HD constexpr Philox4 philox4x32_10(Philox4 c, std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t(0xD2511F53u) * c[0], p1 = std::uint64_t(0xCD9E8D57u) * c[2];
    c = {std::uint32_t(p1 >> 32) ^ c[1] ^ k0, std::uint32_t(p1), std::uint32_t(p0 >> 32) ^ c[3] ^ k1,
         std::uint32_t(p0)};
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return c;
}
// Published known-answer vectors of the Random123 distribution.
static_assert(philox4x32_10({0, 0, 0, 0}, 0, 0) == Philox4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(philox4x32_10({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffff, 0xffffffff) ==
              Philox4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
              Philox4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

constexpr std::uint32_t fnv1a(std::string_view text, std::uint32_t hash = 2166136261u) {
  for (const char ch : text) hash = (hash ^ std::uint8_t(ch)) * 16777619u;
  return hash;
}

/// Identifies one stream of random numbers. Build it with key(seed, "purpose", "name"), then ask for draws by index.
struct Key {
  std::uint64_t seed = 0;
  std::uint32_t stream = 0;  // fnv1a("purpose/name")
  std::uint32_t step = 0;

  EVERGRAD_HD constexpr std::uint32_t bits(std::uint64_t index) const {
    const std::uint64_t block = index / 4;
    return philox4x32_10({std::uint32_t(block), std::uint32_t(block >> 32), step, stream}, std::uint32_t(seed),
                         std::uint32_t(seed >> 32))[index % 4];
  }
  /// Uniform in (0, 1): the 24 upper bits, centred in their cell, so never 0 and never 1.
  EVERGRAD_HD constexpr double uniform(std::uint64_t index) const { return (double(bits(index) >> 8) + 0.5) * 0x1p-24; }
  /// Unbiased enough for any n below 2^32: the high word of a 32x32 product; bias below n / 2^32.
  EVERGRAD_HD constexpr std::uint32_t below(std::uint64_t index, std::uint32_t n) const {
    return std::uint32_t((std::uint64_t(bits(index)) * n) >> 32);
  }
  /// Standard normal by Box-Muller, using draws 2 index and 2 index + 1.
  EVERGRAD_HD double normal(std::uint64_t index) const {
    const double u = uniform(2 * index), v = uniform(2 * index + 1);
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  constexpr Key at_step(std::uint32_t s) const { return {seed, stream, s}; }
};

constexpr Key key(std::uint64_t seed, std::string_view purpose, std::string_view name, std::uint32_t step = 0) {
  return {seed, fnv1a(name, fnv1a("/", fnv1a(purpose))), step};
}

/// Fisher-Yates over [first, first + n) driven by key; the same order on every machine.
template <class It>
void shuffle(It first, std::uint64_t n, Key k) {
  for (std::uint64_t i = n; i > 1; --i) {
    const std::uint64_t j = k.below(i, std::uint32_t(i));
    std::swap(first[i - 1], first[j]);
  }
}

}  // namespace eg
