// tests/engine/test_rng.cpp - Philox keys: published vectors, independence of streams, moments.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "engine/rng.h"

using namespace eg;

TEST_CASE("philox: the known-answer vectors of Random123, at run time too") {
  const auto run = [](Philox4 c, std::uint32_t k0, std::uint32_t k1) {
    volatile std::uint32_t first = c[0];
    c[0] = first;
    return philox4x32_10(c, k0, k1);
  };
  CHECK(run({0, 0, 0, 0}, 0, 0) == Philox4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const std::uint32_t ones = 0xffffffff;
  CHECK(run({ones, ones, ones, ones}, ones, ones) == Philox4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(run({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
        Philox4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("fnv1a: published vectors") {
  CHECK(fnv1a("") == 0x811c9dc5u);
  CHECK(fnv1a("a") == 0xe40c292cu);
  CHECK(fnv1a("foobar") == 0xbf9cf968u);
}

TEST_CASE("key: counter words stand where rng.h puts them") {
  const std::uint64_t seed = 0x0123456789abcdefu, index = (std::uint64_t(5) << 34) + 4 * 77 + 2;
  const Key k = key(seed, "drop", "blocks.0", 9);
  const Philox4 out =
      philox4x32_10({std::uint32_t(index / 4), std::uint32_t((index / 4) >> 32), 9, fnv1a("drop/blocks.0")},
                    0x89abcdefu, 0x01234567u);
  CHECK(k.bits(index) == out[index % 4]);
}

TEST_CASE("key: seed, purpose, name and step each give another stream; the same key the same one") {
  const Key base = key(1, "init", "head.weight", 0);
  const std::array<Key, 5> others = {key(2, "init", "head.weight", 0), key(1, "data", "head.weight", 0),
                                     key(1, "init", "head.bias", 0), key(1, "init", "head.weight", 1), base.at_step(2)};
  for (const Key& other : others) {
    int equal = 0;
    for (std::uint64_t i = 0; i < 1000; ++i) equal += base.bits(i) == other.bits(i);
    CHECK(equal == 0);  // one chance hit in 1000 draws of 32 bits: 2e-7
  }
  CHECK(base.bits(12345) == key(1, "init", "head.weight").bits(12345));
}

TEST_CASE("key: uniform draws have the moments of (0, 1)") {
  // n draws: the mean has standard deviation 1/sqrt(12 n), the second moment sqrt(4/45/n); five of each are allowed.
  constexpr int n = 1 << 20;
  const Key k = key(7, "test", "uniform");
  double sum = 0, squares = 0, lag = 0, low = 1, high = 0, last = 0.5;
  std::array<int, 16> cells{};
  for (int i = 0; i < n; ++i) {
    const double u = k.uniform(std::uint64_t(i));
    sum += u, squares += u * u, lag += (u - 0.5) * (last - 0.5);
    low = std::min(low, u), high = std::max(high, u), last = u;
    ++cells[std::size_t(u * 16)];
  }
  CHECK(std::abs(sum / n - 0.5) < 5 / std::sqrt(12.0 * n));
  CHECK(std::abs(squares / n - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / n));
  CHECK(std::abs(lag / n) < 5.0 / 12 / std::sqrt(double(n)));
  CHECK(low > 0);
  CHECK(high < 1);
  double chi2 = 0;
  for (const int c : cells) chi2 += (c - n / 16.0) * (c - n / 16.0) / (n / 16.0);
  CHECK(chi2 < 15 + 5 * std::sqrt(2 * 15.0));  // 15 degrees of freedom, five standard deviations
}

TEST_CASE("key: normal draws have the first four moments of a standard normal") {
  // Variances of x, x^2, x^3, x^4 under N(0,1): 1, 2, 15, 96.
  constexpr int n = 1 << 19;
  const Key k = key(8, "test", "normal");
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  for (int i = 0; i < n; ++i) {
    const double x = k.normal(std::uint64_t(i));
    m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x;
  }
  const double root = std::sqrt(double(n));
  CHECK(std::abs(m1 / n) < 5 / root);
  CHECK(std::abs(m2 / n - 1) < 5 * std::sqrt(2.0) / root);
  CHECK(std::abs(m3 / n) < 5 * std::sqrt(15.0) / root);
  CHECK(std::abs(m4 / n - 3) < 5 * std::sqrt(96.0) / root);
}

TEST_CASE("key: below(n) is uniform and never n") {
  const Key k = key(9, "test", "below");
  std::array<int, 7> counts{};
  constexpr int n = 70000;
  for (int i = 0; i < n; ++i) {
    const std::uint32_t v = k.below(std::uint64_t(i), 7);
    REQUIRE(v < 7);
    ++counts[v];
  }
  for (const int c : counts) CHECK(std::abs(c - n / 7.0) < 5 * std::sqrt(n / 7.0));
  CHECK(k.below(0, 1) == 0);
}

TEST_CASE("shuffle: a permutation, determined by the key, each position equally likely") {
  std::vector<int> a(100), b(100);
  std::iota(a.begin(), a.end(), 0), std::iota(b.begin(), b.end(), 0);
  shuffle(a.begin(), a.size(), key(1, "test", "shuffle"));
  shuffle(b.begin(), b.size(), key(1, "test", "shuffle"));
  CHECK(a == b);
  CHECK(std::set<int>(a.begin(), a.end()).size() == 100);
  CHECK_FALSE(std::is_sorted(a.begin(), a.end()));
  std::array<int, 5> where{};
  for (std::uint64_t seed = 0; seed < 5000; ++seed) {
    std::array<int, 5> c = {0, 1, 2, 3, 4};
    shuffle(c.begin(), c.size(), key(seed, "test", "shuffle"));
    ++where[std::size_t(std::find(c.begin(), c.end(), 0) - c.begin())];
  }
  for (const int w : where) CHECK(std::abs(w - 1000) < 5 * std::sqrt(1000.0));
}
