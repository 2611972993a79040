// tests/emulated/test_pool.cpp - an activation that is used after it went back to the pool is found by AddressSanitizer,
// in whatever way the work is queued; the same work in the right order is silent everywhere.
#include "cuda/table.h"
#include "engine/memory.h"
#include "tests/emulated/apart.h"
#include "tests/emulated/arrays.h"

namespace eg::emulated_backend {
namespace {

#if defined(EVERGRAD_VARIANT_ASAN)
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif

constexpr Device kEmulated{DeviceType::emulated, 0};
constexpr std::size_t kN = 2048;  // 8 kB: a block of its own in the pool

void add(const Tensor& from, float* to, float value) {
  launch("add", add_probe(), dim3(unsigned(kN / 64)), dim3(64), 0, {}, AddProbe{from.data_as<float>(), to, value});
}

/// A chain of activations as in a step: each dies when the next one has been computed from it. With `too_early` the
/// second dies before its last reader was launched.
void chain(ActivationPool& pool, const Array<float>& in, const Array<float>& out, bool too_early) {
  Tensor second;
  {
    const Tensor first = pool.empty({std::int64_t(kN)}, DType::f32);
    launch("add", add_probe(), dim3(unsigned(kN / 64)), dim3(64), 0, {},
           AddProbe{in.data(), first.data_as<float>(), 1.0f});
    second = pool.empty({std::int64_t(kN)}, DType::f32);
    add(first, second.data_as<float>(), 1.0f);
  }
  const Tensor reused = pool.empty({std::int64_t(kN)}, DType::f32);  // the first one's block
  add(second, reused.data_as<float>(), 1.0f);
  const float* const kept = second.data_as<float>();
  if (too_early) second = {};
  launch("add", add_probe(), dim3(unsigned(kN / 64)), dim3(64), 0, {}, AddProbe{kept, out.data(), 2.0f});
  add(reused, out.data(), 1.0f);
}

enum class Way { eager, lazy, recorded };

int run_here(Way way, bool too_early) {
  register_device(kEmulated, &kernel_table(), &device());
  emulated::settings().workers = 1;
  emulated::settings().lazy = way != Way::eager;
  const auto pool = ActivationPool::make(kEmulated);
  const Array<float> in(kN), out(kN);
  try {
    for (int steps = 0; steps < 3; ++steps) {
      if (way == Way::recorded && steps == 1) {
        Graph graph;
        device().capture(
            {}, [&] { chain(*pool, in, out, too_early); }, &graph);
        for (int i = 0; i < 3; ++i) device().replay(graph, {});
        device().synchronize({});
        device().destroy_graph(graph);
      } else {
        chain(*pool, in, out, too_early && way != Way::recorded);
      }
    }
    for (const float v : out.values())
      if (v != 4.0f) return 1;
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  }
  return 0;
}

}  // namespace

TEST_CASE("pool: use of an activation after its end is found under AddressSanitizer, and its clean twin is silent") {
  for (const Way way : {Way::eager, Way::lazy, Way::recorded}) {
    CAPTURE(int(way));
    const Outcome planted = run_apart([&] { return run_here(way, true); });
    INFO(planted.text);
    CHECK(planted.sanitizer() == kWatched);
    if (kWatched) CHECK(has(planted.text, "use-after-poison"));
    const Outcome twin = run_apart([&] { return run_here(way, false); });
    INFO(twin.text);
    CHECK(twin.code == 0);
    CHECK(twin.text == "");
  }
}

TEST_CASE("pool: a fault that giving a block back brings to light is thrown by the next request") {
  const Restore restore;
  if (!kWatched) return;  // nothing is done when a block goes back
  register_device(kEmulated, &kernel_table(), &device());
  emulated::settings().lazy = false;
  const auto pool = ActivationPool::make(kEmulated);
  Tensor t = pool->empty({64}, DType::f32);
  device().release(&t);  // no device block: told at the stream's next operation
  t = {};
  const std::string text = error_of([&] { pool->empty({64}, DType::f32); });
  CHECK(has(text, "released twice"));
  CHECK(error_of([&] { pool->empty({64}, DType::f32); }) == "no error");
}

}  // namespace eg::emulated_backend
