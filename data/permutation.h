// data/permutation.h - permutations that are evaluated point by point, so that a million classes cost nothing: a Feistel
// network with cycle walking (Black & Rogaway 2002).
#pragma once
#include <cstdint>

namespace eg {

/// A permutation of [0, n) in O(1) memory, and its inverse; drawn by (seed, stream, step). Throws Error{usage} unless
/// 1 <= n <= 2^62.
class PointPermutation {
 public:
  PointPermutation(std::uint64_t n, std::uint64_t seed, std::uint32_t stream, std::uint32_t step);
  std::uint64_t operator()(std::uint64_t i) const;
  std::uint64_t inverse(std::uint64_t i) const;

 private:
  std::uint64_t round_trip(std::uint64_t i, bool backwards) const;
  std::uint64_t n_, seed_;
  std::uint32_t stream_, step_;
  int half_bits_ = 1;
};

}  // namespace eg
