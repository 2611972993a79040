// tests/emulated/test_blocks.cpp - threads of a block: what survives a switch, in which order
// they run; and what is told when one of them goes wrong.
#include <algorithm>
#include <mutex>

#include "tests/emulated/arrays.h"
#include "tests/words/probes.h"

namespace eg::emulated::watchdog {
void set(void (*tell)(const std::string&), int milliseconds);
}

namespace eg::emulated_backend {

TEST_CASE("blocks: registers survive switches, for 1, 31, 33 and 1024 threads, in twenty orders") {
  const Restore restore;
  for (const unsigned threads : {1u, 31u, 33u, 1024u}) {
    const int rounds = 19;
    std::vector<double> kept(8 * threads);
    for (std::size_t t = 0; t < threads; ++t)
      for (std::size_t i = 0; i < 8; ++i) kept[8 * t + i] = double(t) + 0.125 * double(i);
    for (std::size_t round = 0; round < rounds; ++round) {
      std::vector<double> shown(threads);
      for (std::size_t t = 0; t < threads; ++t) shown[t] = kept[8 * t + round % 8];
      for (std::size_t t = 0; t < threads; ++t)
        for (std::size_t i = 0; i < 8; ++i) kept[8 * t + i] += shown[(t + 1) % threads];
    }
    for (int order = 0; order <= (threads > 100 ? 4 : 20); ++order) {
      use_schedule(order);
      const Array<double> out(8 * threads);
      launch("keep", keep_probe(), dim3(1), dim3(threads), 0, {}, KeepProbe{out.data(), rounds});
      CHECK(out.values() == kept);
    }
  }
}

TEST_CASE("blocks: stacks are aligned as the processor's vector instructions want them, before and after a switch") {
  const Restore restore;
  for (const unsigned threads : {1u, 33u, 1024u}) {
    use_schedule(int(threads % 4));
    const Array<unsigned> out(threads);
    launch("align", align_probe(), dim3(1), dim3(threads), 0, {}, AlignProbe{out.data()});
    CHECK(out.values() == std::vector<unsigned>(threads, 0u));
  }
}

TEST_CASE("blocks: the same seed runs threads in the same order, another seed in another") {
  const Restore restore;
  emulated::settings().workers = 1;
  const auto order_of = [](std::uint64_t seed) {
    emulated::settings().schedule = {true, seed};
    const Array<unsigned> counters(2), old(64);
    launch("atomic", atomic_probe(), dim3(2), dim3(32), 0, {}, AtomicProbe{counters.data(), old.data()});
    return old.values();
  };
  CHECK(order_of(3) == order_of(3));
  CHECK(order_of(3) != order_of(4));
}

TEST_CASE("blocks: what a launch may not ask for is refused by name") {
  const Array<unsigned> out(9);
  const auto refused = [&](dim3 grid, dim3 block, std::size_t shared) {
    return error_of([&] { launch("index", index_probe(), grid, block, shared, {}, IndexProbe{out.data()}); });
  };
  CHECK(has(refused(dim3(1), dim3(1025), 0), "index"));
  CHECK(has(refused(dim3(1), dim3(1025), 0), "1024"));
  CHECK(has(refused(dim3(1), dim3(32), std::size_t(1) << 20), "shared"));
  const auto together = [&](unsigned blocks) {
    const Array<float> in(blocks), both(2 * blocks);
    return error_of([&] {
      launch_cooperative("grid", grid_probe(), dim3(blocks), dim3(1), 0, {},
                         GridProbe{in.data(), both.data(), both.data(), 0});
    });
  };
  CHECK(together(16) == "no error");
  CHECK(has(together(17), "blocks of a cooperative launch 17"));
  CHECK(refused(dim3(0), dim3(32), 0) == "no error");  // an empty grid runs nothing
}

TEST_CASE(
    "blocks: locals beyond a thread's stack are told as such, with kernel and thread, and the next launch is right") {
#if defined(EVERGRAD_VARIANT_ASAN)
  return;  // AddressSanitizer takes the signal first and ends the program
#endif
  const Array<unsigned> out(1);
  const std::string text = error_of([&] {
    launch("deep", deep_probe(), dim3(1), dim3(32), 0, {}, DeepProbe{out.data(), 100000});
  });
  CHECK(has(text, "stack overflow"));
  CHECK(has(text, "deep"));
  launch("deep", deep_probe(), dim3(1), dim3(32), 0, {}, DeepProbe{out.data(), 3});
  CHECK(out.values()[0] == 3u + 3u + 2u + 2u + 1u + 1u);
}

namespace {
std::mutex told_mutex;
std::string told;
}  // namespace

TEST_CASE("blocks: a thread that never lets others run is told, with the kernel's name") {
  emulated::watchdog::set(
      [](const std::string& text) {
        const std::lock_guard lock(told_mutex);
        told += text;
      },
      20);
  const Array<unsigned> out(32);
  // Until it is told: how long a loop takes depends on the machine, that it is told does not.
  bool heard = false;
  for (std::int64_t n = 1 << 22; !heard && n < std::int64_t(1) << 40; n *= 4) {
    launch("spin", spin_probe(), dim3(1), dim3(32), 0, {}, SpinProbe{out.data(), n});
    device().synchronize({});
    const std::lock_guard lock(told_mutex);
    heard = has(told, "spin");
  }
  CHECK(heard);
  CHECK(has(told, "spin_pause()"));
  emulated::watchdog::set([](const std::string&) {}, 10000);
  CHECK(out.values() == std::vector<unsigned>(32, 1u));
}

}  // namespace eg::emulated_backend
