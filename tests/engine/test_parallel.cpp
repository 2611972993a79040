// tests/engine/test_parallel.cpp - parallel_for: coverage, fixed chunks, exceptions, nesting.
#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "engine/parallel.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;

namespace {
struct Threads {  // restores the count after a test
  explicit Threads(int n) { set_num_threads(n); }
  ~Threads() { set_num_threads(0); }
};
}  // namespace

TEST_CASE("parallel_for: every item once, chunks of the given size, for any thread count") {
  for (const int threads : {1, 2, 3, 8}) {
    const Threads scope(threads);
    CHECK(num_threads() == threads);
    for (const std::int64_t n : {0, 1, 2, 31, 32, 33, 197, 1000})
      for (const std::int64_t grain : {1, 7, 32, 5000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
        std::atomic<int> bad{0}, chunks{0};
        parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
          if (begin != chunk * grain || end != std::min(n, begin + grain) || begin >= end) ++bad;
          ++chunks;
          for (std::int64_t i = begin; i < end; ++i) ++hits[std::size_t(i)];
        });
        CHECK(bad == 0);
        CHECK(chunks == chunks_of(n, grain));
        CHECK(std::all_of(hits.begin(), hits.end(), [](const auto& h) { return h == 1; }));
      }
  }
}

TEST_CASE("parallel_for: sums through one partial per chunk are bitwise the same on 1 to 5 threads") {
  const auto sum = [] {
    constexpr std::int64_t n = 100000, grain = 777;
    std::vector<float> partial(std::size_t(chunks_of(n, grain)));
    parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
      float s = 0;
      for (std::int64_t i = begin; i < end; ++i) s += 1.0f / float(i + 1);
      partial[std::size_t(chunk)] = s;
    });
    float total = 0;
    for (const float p : partial) total += p;
    return total;
  };
  const Threads scope(1);
  const float one = sum();
  for (const int threads : {2, 3, 5}) {
    set_num_threads(threads);
    for (int repeat = 0; repeat < 20; ++repeat) CHECK(sum() == one);
  }
}

TEST_CASE("parallel_for: the first exception in chunk order reaches the caller, and the pool still works") {
  for (const int threads : {1, 2, 4}) {
    const Threads scope(threads);
    for (int repeat = 0; repeat < 20; ++repeat) {
      const std::string text = error_text(Kind::numeric, [] {
        parallel_for(100, 1, [](std::int64_t begin, std::int64_t, std::int64_t) {
          if (begin == 17 || begin == 60) fail(Kind::numeric, cat("chunk ", begin));
        });
      });
      CHECK(text == "chunk 17");
      std::atomic<int> count{0};
      parallel_for(50, 1, [&](std::int64_t, std::int64_t, std::int64_t) { ++count; });
      CHECK(count == 50);
    }
  }
}

TEST_CASE("parallel_for: a nested call runs completely on the thread that makes it") {
  const Threads scope(3);
  std::atomic<int> wrong{0}, count{0};
  parallel_for(20, 1, [&](std::int64_t, std::int64_t, std::int64_t) {
    const auto self = std::this_thread::get_id();
    parallel_for(30, 4, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      if (std::this_thread::get_id() != self) ++wrong;
      count += int(end - begin);
    });
  });
  CHECK(wrong == 0);
  CHECK(count == 600);
}

TEST_CASE("parallel_for: work from several threads at once is done once each") {
  const Threads scope(2);
  std::atomic<int> count{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t)
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 50; ++repeat)
        parallel_for(40, 3, [&](std::int64_t begin, std::int64_t end, std::int64_t) { count += int(end - begin); });
    });
  for (std::thread& t : callers) t.join();
  CHECK(count == 4 * 50 * 40);
}

TEST_CASE("threads: 0 means all cores, nonsense is a usage error that keeps the old count") {
  const Threads scope(2);
  error_text(Kind::usage, [] { set_num_threads(-1); });
  error_text(Kind::usage, [] { set_num_threads(1 << 20); });
  CHECK(num_threads() == 2);
  set_num_threads(0);
  CHECK(num_threads() >= 1);
}
