// tests/words/test_words.cpp - words of a warp and of a block against a scalar model written here: on the emulated device
// under several orders of the threads, and, the same source, on cuda:0.
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/words/arrays.h"
#include "tests/words/probes.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr int kOrders = 4;
std::vector<float> counting(std::size_t n, float first = 0.0f) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = first + float(i);
  return v;
}

/// The lane whose value a shuffle hands to `lane` (PTX ISA, shfl.sync): the lane itself where that would leave its part.
int source_of(ShuffleKind kind, int lane, int argument, int width) {
  const int first = lane / width * width;
  switch (kind) {
    case ShuffleKind::index: return first + argument % width;
    case ShuffleKind::up: return lane - argument >= first ? lane - argument : lane;
    case ShuffleKind::down: return lane + argument < first + width ? lane + argument : lane;
    case ShuffleKind::exclusive_or: return (lane ^ argument) < first + width ? lane ^ argument : lane;
  }
  return lane;
}

}  // namespace

TEST_CASE("words: shuffles of every kind, width and argument, of 4 and 8 bytes") {
  const Restore restore;
  const Array<float> in(counting(32, 100.0f));
  std::vector<double> wide(32);
  for (int i = 0; i < 32; ++i) wide[std::size_t(i)] = 1e-9 * i - 3.0;
  const Array<double> in_wide(wide);
  int order = 0;
  for (const int width : {1, 2, 4, 8, 16, 32})
    for (int kind = 0; kind < 4; ++kind)
      for (int argument = 0; argument < 32; ++argument) {  // also beyond the width
        use_schedule(order++ % kOrders);
        const Array<float> out(32);
        const Array<double> out_wide(32);
        launch("shuffle", shuffle_probe(), dim3(1), dim3(32), 0, {},
               ShuffleProbe{in.data(), out.data(), in_wide.data(), out_wide.data(), ShuffleKind(kind), argument, width,
                            0xffffffffu});
        const auto got = out.values();
        const auto got_wide = out_wide.values();
        for (int lane = 0; lane < 32; ++lane) {
          const auto source = std::size_t(source_of(ShuffleKind(kind), lane, argument, width));
          CHECK(got[std::size_t(lane)] == 100.0f + float(source));
          CHECK(got_wide[std::size_t(lane)] == wide[source]);
        }
      }
}

TEST_CASE("words: shuffles and votes of half a warp, while the other half is elsewhere") {
  const Restore restore;
  const Array<float> in(counting(32));
  const Array<double> in_wide(std::vector<double>(32, 2.0));
  for (const unsigned mask : {0x0000ffffu, 0xffff0000u, 0x00ff00ffu}) {
    const int width = mask == 0x00ff00ffu ? 8 : 16;
    const Array<float> out(32);
    const Array<double> out_wide(32);
    launch("shuffle", shuffle_probe(), dim3(1), dim3(32), 0, {},
           ShuffleProbe{in.data(), out.data(), in_wide.data(), out_wide.data(), ShuffleKind::exclusive_or, 5, width,
                        mask});
    const auto got = out.values();
    for (int lane = 0; lane < 32; ++lane) CHECK(got[std::size_t(lane)] == (mask >> lane & 1 ? float(lane ^ 5) : 0.0f));
  }
  for (const unsigned mask : {0x80000000u, 0x00000001u, 0x12345678u, 0xfffffffeu, 0x00010100u}) {
    const int source = __builtin_ctz(mask);  // all lanes of the mask read its lowest one
    const Array<float> out(32);
    const Array<double> out_wide(32);
    launch("shuffle", shuffle_probe(), dim3(1), dim3(32), 0, {},
           ShuffleProbe{in.data(), out.data(), in_wide.data(), out_wide.data(), ShuffleKind::index, source, 32, mask});
    const auto got = out.values();
    for (int lane = 0; lane < 32; ++lane) CHECK(got[std::size_t(lane)] == (mask >> lane & 1 ? float(source) : 0.0f));
  }
  for (const unsigned bits : {0u, 0xffffffffu, 0x80000001u, 0x12345678u})
    for (const unsigned mask : {0xffffffffu, 0x0000ffffu, 0xf0f0f0f0u}) {
      std::vector<int> predicate(32);
      for (int lane = 0; lane < 32; ++lane) predicate[std::size_t(lane)] = int(bits >> lane & 1) * (lane + 1);
      const Array<int> on_device(predicate);
      const Array<unsigned> out(96);
      launch("vote", vote_probe(), dim3(1), dim3(32), 0, {}, VoteProbe{on_device.data(), out.data(), mask});
      const auto got = out.values();
      for (unsigned lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        CHECK(got[3 * lane] == (bits & mask));
        CHECK(got[3 * lane + 1] == unsigned((bits & mask) != 0));
        CHECK(got[3 * lane + 2] == unsigned((bits & mask) == mask));
      }
    }
}

TEST_CASE("words: tensor-core product, one-hot in every place of a and of b") {
  // PTX ISA, mma.m16n8k16: with g = lane / 4 and t = lane % 4, a holds (g, 2t..), (g+8, 2t..), (g, 2t+8..), (g+8, 2t+8..);
  // b holds (2t.., g), (2t+8.., g); the sums are (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
  const Restore restore;
  const auto pack = [](float low, float high) {
    return std::uint32_t(bf16(low).bits) | std::uint32_t(bf16(high).bits) << 16;
  };
  const auto a_at = [](int i, int k) { return float(1 + (i * 16 + k) % 250); };  // all exact in bf16
  const auto b_at = [](int k, int j) { return float(1 + (k * 8 + j) % 120); };
  for (const bool hot_a : {true, false}) {
    const int blocks = hot_a ? 16 * 16 : 16 * 8;
    std::vector<std::uint32_t> a(std::size_t(blocks) * 128), b(std::size_t(blocks) * 64);
    std::vector<float> c(std::size_t(blocks) * 128);
    for (int n = 0; n < blocks; ++n) {
      const auto a_of = [&](int i, int k) { return hot_a ? float(n == i * 16 + k) : a_at(i, k); };
      const auto b_of = [&](int k, int j) { return hot_a ? b_at(k, j) : float(n == k * 8 + j); };
      for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; ++r) {
          const int i = g + 8 * (r % 2), k = 2 * t + 8 * (r / 2);
          a[std::size_t((n * 32 + lane) * 4 + r)] = pack(a_of(i, k), a_of(i, k + 1));
          c[std::size_t((n * 32 + lane) * 4 + r)] = float(r) + 0.5f;
        }
        for (int r = 0; r < 2; ++r)
          b[std::size_t((n * 32 + lane) * 2 + r)] = pack(b_of(2 * t + 8 * r, g), b_of(2 * t + 8 * r + 1, g));
      }
    }
    const Array<std::uint32_t> da(a), db(b);
    const Array<float> dc(c), dd(c.size());
    launch("mma", mma_probe(), dim3(unsigned(blocks)), dim3(32), 0, {},
           MmaProbe{da.data(), db.data(), dc.data(), dd.data()});
    const auto d = dd.values();
    int wrong = 0;
    for (int n = 0; n < blocks; ++n)
      for (int lane = 0; lane < 32; ++lane)
        for (int e = 0; e < 4; ++e) {
          const int i = lane / 4 + 8 * (e / 2), j = 2 * (lane % 4) + e % 2;
          float want = float(e) + 0.5f;
          if (hot_a && n / 16 == i) want += b_at(n % 16, j);
          if (!hot_a && n % 8 == j) want += a_at(i, n / 8);
          wrong += d[std::size_t((n * 32 + lane) * 4 + e)] != want;
        }
    CHECK(wrong == 0);
  }
}

TEST_CASE("words: ldmatrix hands out four and two matrices, plain and transposed") {
  std::vector<std::uint16_t> m(256);
  for (std::size_t i = 0; i < m.size(); ++i) m[i] = std::uint16_t(1000 + i);
  const Array<std::uint16_t> in(m);
  const Array<std::uint32_t> out(32 * 12);
  launch("ldmatrix", ldmatrix_probe(), dim3(1), dim3(32), 0, {}, LdmatrixProbe{in.data(), out.data()});
  const auto got = out.values();
  const auto at = [&](int matrix, int row, int column) {
    return std::uint32_t(m[std::size_t((matrix * 8 + row) * 8 + column)]);
  };
  for (int lane = 0; lane < 32; ++lane)
    for (int word = 0; word < 12; ++word) {
      const bool transposed = word >= 8 ? word >= 10 : word >= 4;
      const int matrix = word >= 8 ? word % 2 : word % 4, row = lane / 4, column = 2 * (lane % 4);
      const std::uint32_t low = transposed ? at(matrix, column, row) : at(matrix, row, column);
      const std::uint32_t high = transposed ? at(matrix, column + 1, row) : at(matrix, row, column + 1);
      CHECK(got[std::size_t(12 * lane + word)] == (low | high << 16));
    }
}

TEST_CASE("words: asynchronous copies land in groups, and write zeros where they are not valid") {
  const Restore restore;
  std::vector<std::uint32_t> values(256);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 50u + std::uint32_t(i);
  const Array<std::uint32_t> in(values);
  for (int order = 0; order < kOrders; ++order) {
    use_schedule(order);
    const Array<std::uint32_t> out(384);
    launch("copy", copy_probe(), dim3(1), dim3(32), 0, {}, CopyProbe{in.data(), out.data()});
    const auto got = out.values();
    for (std::size_t lane = 0; lane < 32; ++lane)
      for (std::size_t i = 0; i < 4; ++i) {
        CHECK(got[4 * lane + i] == values[4 * lane + i]);
        CHECK(got[4 * (32 + lane) + i] == values[4 * lane + i]);
        CHECK(got[4 * (64 + lane) + i] == (lane % 3 ? values[4 * (32 + lane) + i] : 0u));
      }
  }
}

TEST_CASE("words: sums and maxima over warps and blocks follow the xor tree, to the last bit") {
  const Restore restore;
  std::vector<float> v(96);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = std::sin(float(i)) * std::pow(10.0f, float(i % 7) - 3.0f);
  const Array<float> in(v);
  const auto tree = [&](auto first, std::size_t warp) {
    using T = decltype(first);
    std::vector<T> x(32);
    for (std::size_t i = 0; i < 32; ++i) x[i] = T(v[32 * warp + i]);
    for (std::size_t offset = 16; offset > 0; offset /= 2) {
      std::vector<T> next(32);
      for (std::size_t i = 0; i < 32; ++i) next[i] = x[i] + x[i ^ offset];
      x = next;
    }
    return x[0];
  };
  for (int order = 0; order < kOrders; ++order) {
    use_schedule(order);
    const Array<float> out(96 * 3);
    const Array<double> out_wide(96 * 2);
    launch("reduce", reduce_probe(), dim3(1), dim3(96), 0, {}, ReduceProbe{in.data(), out.data(), out_wide.data()});
    const auto got = out.values();
    const auto wide = out_wide.values();
    const float block = tree(0.0f, 0) + tree(0.0f, 1) + tree(0.0f, 2);
    const double block_wide = tree(0.0, 0) + tree(0.0, 1) + tree(0.0, 2);
    for (std::size_t t = 0; t < 96; ++t) {
      float largest = v[t / 32 * 32];
      for (std::size_t i = 0; i < 32; ++i) largest = std::max(largest, v[t / 32 * 32 + i]);
      CHECK(got[3 * t] == tree(0.0f, t / 32));
      CHECK(got[3 * t + 1] == largest);
      CHECK(got[3 * t + 2] == block);
      CHECK(wide[2 * t] == tree(0.0, t / 32));
      CHECK(wide[2 * t + 1] == block_wide);
    }
  }
}

TEST_CASE("words: a thread that pauses goes on when another of its block has done what it waits for") {
  const Restore restore;
  for (int order = 0; order < kOrders; ++order) {
    use_schedule(order);
    const Array<unsigned> flag(1), out(1);
    launch("pause", pause_probe(), dim3(1), dim3(64), 0, {}, PauseProbe{flag.data(), out.data()});
    CHECK(out.values() == std::vector<unsigned>{42});
  }
}

TEST_CASE("words: blocks of a cooperative launch meet, again and again, as many as the device holds") {
  const Restore restore;
  constexpr int kRounds = 3;
  for (const unsigned threads : {1u, 33u, 128u}) {
    const auto most = std::size_t(most_resident_blocks(grid_probe(), int(threads), 0));
    REQUIRE(most > 0);
    for (const std::size_t blocks : {std::size_t(1), std::size_t(2), most}) {
      CAPTURE(threads);
      CAPTURE(blocks);
      const std::size_t n = blocks * threads;
      std::vector<float> wanted(n);
      for (std::size_t i = 0; i < n; ++i) wanted[i] = float(i % 1000);  // sums of eight of them are exact
      const Array<float> in(wanted), between(n);
      for (int round = 0; round < kRounds; ++round) {
        const std::vector<float> before = wanted;
        for (std::size_t i = 0; i < n; ++i) wanted[i] += before[(i + threads) % n];
      }
      wanted.resize(n + blocks, float(kRounds));
      for (int order = 0; order < kOrders; ++order) {
        use_schedule(order);
        const Array<float> out(n + blocks);
        launch_cooperative("grid", grid_probe(), dim3(unsigned(blocks)), dim3(threads), 0, {},
                           GridProbe{in.data(), between.data(), out.data(), kRounds});
        CHECK(out.values() == wanted);
      }
      const Array<float> out(n + blocks);
      Graph graph;
      REQUIRE(device().capture(
          {},
          [&] {
            launch_cooperative("grid", grid_probe(), dim3(unsigned(blocks)), dim3(threads), 0, {},
                               GridProbe{in.data(), between.data(), out.data(), kRounds});
          },
          &graph));
      for (int i = 0; i < 2; ++i) device().replay(graph, {});
      CHECK(out.values() == wanted);
      device().destroy_graph(graph);
    }
  }
}

}  // namespace eg::EVERGRAD_BACKEND
