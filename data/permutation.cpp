// data/permutation.cpp - see permutation.h.
#include "data/permutation.h"

#include "engine/error.h"
#include "engine/rng.h"

namespace eg {

PointPermutation::PointPermutation(std::uint64_t n, std::uint64_t seed, std::uint32_t stream, std::uint32_t step)
    : n_(n), seed_(seed), stream_(stream), step_(step) {
  check(n >= 1 && n <= std::uint64_t(1) << 62, Kind::usage, [&] { return cat("a permutation of ", n, " items"); });
  while ((std::uint64_t(1) << (2 * half_bits_)) < n) ++half_bits_;
}

std::uint64_t PointPermutation::round_trip(std::uint64_t i, bool backwards) const {
  const std::uint64_t mask = (std::uint64_t(1) << half_bits_) - 1;
  std::uint64_t left = i >> half_bits_, right = i & mask;
  for (std::uint32_t r = 0; r < 8; ++r) {
    const std::uint32_t round = backwards ? 7 - r : r;
    const std::uint64_t in = backwards ? left : right;
    const std::uint64_t f =
        philox4x32_10({std::uint32_t(in), round, step_, stream_}, std::uint32_t(seed_), std::uint32_t(seed_ >> 32))[0];
    if (backwards) {
      const std::uint64_t old_left = right ^ (f & mask);
      right = left, left = old_left;
    } else {
      const std::uint64_t new_right = left ^ (f & mask);
      left = right, right = new_right;
    }
  }
  return left << half_bits_ | right;
}

std::uint64_t PointPermutation::operator()(std::uint64_t i) const {
  do i = round_trip(i, false);
  while (i >= n_);
  return i;
}
std::uint64_t PointPermutation::inverse(std::uint64_t i) const {
  do i = round_trip(i, true);
  while (i >= n_);
  return i;
}

}  // namespace eg
