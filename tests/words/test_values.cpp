// tests/words/test_values.cpp - words of a single thread against a scalar model written here: where it is, conversions,
// bits, random numbers, wide accesses, atomics, fast functions. On the emulated device and, the same source, on cuda:0.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/rng.h"
#include "tests/words/arrays.h"
#include "tests/words/probes.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr int kOrders = 4;

/// Bits that have no pattern, but are the same every time.
std::vector<std::uint32_t> mixed(std::size_t n) {
  std::vector<std::uint32_t> v(n);
  std::uint32_t x = 2463534242u;  // xorshift32 (Marsaglia 2003)
  for (auto& out : v) x ^= x << 13, x ^= x >> 17, x ^= x << 5, out = x;
  return v;
}

}  // namespace

TEST_CASE("words: every thread knows where it is, in three dimensions") {
  const Restore restore;
  const std::pair<dim3, dim3> shapes[] = {{dim3(1), dim3(1)},          {dim3(3), dim3(31)},
                                          {dim3(2, 3, 2), dim3(33)},   {dim3(1), dim3(1024)},
                                          {dim3(2, 2), dim3(3, 5, 7)}, {dim3(1, 1, 3), dim3(32, 4)}};
  int order = 0;
  for (const auto& [grid, block] : shapes) {
    use_schedule(order++);
    const std::size_t threads = block.x * block.y * block.z, blocks = grid.x * grid.y * grid.z;
    const Array<unsigned> out(9 * threads * blocks);
    launch("index", index_probe(), grid, block, 0, {}, IndexProbe{out.data()});
    const auto got = out.values();
    int wrong = 0;
    for (std::size_t b = 0; b < blocks; ++b)
      for (std::size_t t = 0; t < threads; ++t) {
        const std::size_t want[] = {t % block.x,
                                    t / block.x % block.y,
                                    t / block.x / block.y,
                                    b % grid.x,
                                    b / grid.x % grid.y,
                                    b / grid.x / grid.y,
                                    block.x,
                                    grid.y,
                                    grid.z};
        for (std::size_t i = 0; i < 9; ++i) wrong += got[9 * (b * threads + t) + i] != want[i];
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("words: bf16 of every upper half, at and around every tie, is the nearest, ties to even") {
  std::vector<float> values;
  for (std::uint32_t high = 0; high < 65536; ++high)
    for (const std::uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      values.push_back(__builtin_bit_cast(float, high << 16 | low));
  const Array<float> in(values), back(values.size());
  const Array<std::uint32_t> out(values.size());
  const auto n = std::int64_t(values.size());
  launch("convert", convert_probe(), dim3(unsigned((n + 255) / 256)), dim3(256), 0, {},
         ConvertProbe{in.data(), out.data(), back.data(), n});
  const auto got = out.values();
  const auto unpacked = back.values();
  int wrong = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float x = values[i];
    std::uint32_t want = 0x7fff;
    if (x == x) {
      // The two neighbours, as magnitudes in double; beyond the largest lies 2^128, which stands for infinity.
      const std::uint32_t sign = __builtin_bit_cast(std::uint32_t, x) >> 16 & 0x8000u;
      const std::uint32_t below = __builtin_bit_cast(std::uint32_t, std::fabs(x)) >> 16;
      const auto value = [](std::uint32_t bits) {
        return bits >= 0x7f80u ? std::ldexp(1.0, 128) : double(__builtin_bit_cast(float, bits << 16));
      };
      const double size = std::isinf(x) ? std::ldexp(1.0, 128) : std::fabs(double(x));
      const double down = size - value(below), up = value(below + 1) - size;
      const bool upper = below < 0x7f80u && (up < down || (up == down && below % 2 == 1));
      want = sign | (upper ? below + 1 : below);
    }
    wrong += (got[i] & 0xffffu) != want || got[i] >> 16 != want;
    const float again = __builtin_bit_cast(float, want << 16);
    wrong += !(unpacked[i] == again || (again != again && unpacked[i] != unpacked[i]));
  }
  CHECK(wrong == 0);
}

TEST_CASE("words: set bits, the lowest and the highest of them") {
  std::vector<std::uint32_t> values = {0u, 1u, 0x80000000u, 0xffffffffu, 0x7fffffffu, 0x00ff0000u};
  for (const std::uint32_t v : mixed(90)) values.push_back(v >> v % 32);
  const Array<std::uint32_t> in(values), out(3 * values.size());
  launch("bits", bits_probe(), dim3(1), dim3(96), 0, {}, BitsProbe{in.data(), out.data(), int(values.size())});
  const auto got = out.values();
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t set = 0, lowest = 0, above = 32;
    for (std::uint32_t bit = 0; bit < 32; ++bit) {
      if (!(values[i] >> bit & 1)) continue;
      ++set, above = 31 - bit;
      if (!lowest) lowest = bit + 1;
    }
    CAPTURE(values[i]);
    CHECK(got[3 * i] == set);
    CHECK(got[3 * i + 1] == lowest);
    CHECK(got[3 * i + 2] == above);
  }
}

TEST_CASE("words: Philox gives the published numbers, and the draws that the host gives") {
  // Known-answer vectors of the Random123 distribution, then counters without a pattern.
  std::vector<std::uint32_t> counter = {0u,          0u,          0u,          0u,          0xffffffffu, 0xffffffffu,
                                        0xffffffffu, 0xffffffffu, 0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u};
  std::vector<std::uint32_t> keys = {0u, 0u, 0xffffffffu, 0xffffffffu, 0xa4093822u, 0x299f31d0u};
  const std::vector<std::uint32_t> published = {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u,
                                                0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu,
                                                0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u};
  const int n = 300;
  const auto more = mixed(6 * std::size_t(n));
  std::size_t next = 0;
  while (counter.size() < 4 * std::size_t(n)) counter.push_back(more[next++]);
  while (keys.size() < 2 * std::size_t(n)) keys.push_back(more[next++]);
  const Key key = eg::key(0x123456789abcdefull, "words", "test", 77);
  const Array<std::uint32_t> c(counter), k(keys), out(4 * std::size_t(n)), draws{std::size_t(n)};
  launch("philox", philox_probe(), dim3(5), dim3(64), 0, {},
         PhiloxProbe{c.data(), k.data(), out.data(), draws.data(), key.seed, key.stream, key.step, n});
  const auto got = out.values(), drawn = draws.values();
  CHECK(std::equal(published.begin(), published.end(), got.begin()));
  for (std::size_t i = 0; i < std::size_t(n); ++i) {
    const std::uint32_t* const at = &counter[4 * i];
    const Philox4 want = philox4x32_10({at[0], at[1], at[2], at[3]}, keys[2 * i], keys[2 * i + 1]);
    for (std::size_t word = 0; word < 4; ++word) CHECK(got[4 * i + word] == want[word]);
    CHECK(drawn[i] == key.bits(i));
  }
}

TEST_CASE("words: accesses of 16, 8 and 4 bytes move the same values") {
  std::vector<std::uint16_t> values(8 * 100);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::uint16_t(7 * i + 3);
  const Array<std::uint16_t> in(values), out(3 * values.size());
  launch("wide", wide_probe(), dim3(4), dim3(32), 0, {}, WideProbe{in.data(), out.data(), std::int64_t(values.size())});
  const auto got = out.values();
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == values[i % values.size()]);
}

TEST_CASE("words: atomics lose nothing over blocks and workers") {
  const Restore restore;
  for (int order = 0; order < kOrders; ++order) {
    use_schedule(order);
    const Array<unsigned> counters(2), old(33 * 40);
    launch("atomic", atomic_probe(), dim3(40), dim3(33), 0, {}, AtomicProbe{counters.data(), old.data()});
    CHECK(counters.values() == std::vector<unsigned>{33 * 40, 33 * 40 - 1});
    std::vector<bool> seen(33 * 40);
    for (const unsigned o : old.values()) seen[o] = true;
    CHECK(std::find(seen.begin(), seen.end(), false) == seen.end());
  }
}

TEST_CASE("words: an exchange hands every value on once; maxima of signed numbers; counts in shared memory") {
  const Restore restore;
  for (int order = 0; order < kOrders; ++order) {
    use_schedule(order);
    const unsigned blocks = 2, threads = 37, all = blocks * threads;
    const Array<unsigned> cell(1), taken(all), in_block(blocks);
    const Array<int> largest(std::vector<int>{-200});
    launch("cell", cell_probe(), dim3(blocks), dim3(threads), 0, {},
           CellProbe{cell.data(), largest.data(), taken.data(), in_block.data()});
    auto seen = taken.values();
    seen.push_back(cell.values()[0]);  // the last one left it there
    std::sort(seen.begin(), seen.end());
    for (unsigned i = 0; i <= all; ++i) CHECK(seen[i] == i);
    CHECK(largest.values()[0] == int(all) - 51);  // 23; of unsigned numbers -1 would be the largest
    CHECK(in_block.values() == std::vector<unsigned>(blocks, threads));
  }
}

TEST_CASE("words: fast functions are as near as the PTX ISA says") {
  // ex2.approx, lg2.approx, rsqrt.approx, rcp.approx: shares of the result, of a logarithm near 0 the error itself. An ulp
  // is at most 2^-23 of a number.
  const double exp2_error = 0x1p-22, log2_error = 0x1p-22, rsqrt_error = std::exp2(-22.4), reciprocal_error = 0x1p-23;
  std::vector<float> values = {1.0f, -1.0f, 2.0f, 0.5f, 0.70710678f, 1.0000001f, 0.99999994f, 3.0f};
  for (const std::uint32_t v : mixed(1000))
    values.push_back(float(std::int32_t(v)) * 0x1p-31f * (v % 2 ? 100.0f : 2.0f));
  const Array<float> in(values), out(4 * values.size());
  launch("fast", fast_probe(), dim3(unsigned(values.size() + 63) / 64), dim3(64), 0, {},
         FastProbe{in.data(), out.data(), int(values.size())});
  const auto got = out.values();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = double(values[i]), size = std::fabs(x), log2 = std::log2(size);
    const bool near_one = size > 0.5 && size < 2.0;
    const auto off = [&](std::size_t which, double want) { return std::fabs(double(got[4 * i + which]) - want); };
    CAPTURE(x);
    CHECK(off(0, std::exp2(x)) <= exp2_error * std::exp2(x));
    CHECK(off(1, log2) <= log2_error * (near_one ? 1.0 : std::fabs(log2)));
    CHECK(off(2, 1 / std::sqrt(size)) <= rsqrt_error / std::sqrt(size));
    CHECK(off(3, 1 / x) <= reciprocal_error / size);
  }
}

}  // namespace eg::EVERGRAD_BACKEND
