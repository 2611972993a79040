// tests/words/test_warpgroup.cpp - products of a warpgroup (cuda/wgmma.cuh): every form against a scalar model, on the
// emulated device and, the same source, on a GPU that has them; and that the emulated device finds what is done wrong.
#include "cuda/kernels/kernels.h"
#include "engine/error.h"
#include "tests/words/arrays.h"
#include "tests/words/warpgroup.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr int kRows = 64, kDepth = 64, kThreads = 128;

/// Integers from -3 to 3: sums of their products are exact.
float number(int seed, int mn, int k) { return float((mn * 31 + k * 17 + mn * k + seed) % 7 - 3); }

std::vector<bf16> operand(int seed, int size, bool transposed) {
  std::vector<bf16> v(std::size_t(size * kDepth));
  for (int mn = 0; mn < size; ++mn)
    for (int k = 0; k < kDepth; ++k)
      v[std::size_t(transposed ? k * size + mn : mn * kDepth + k)] = bf16(number(seed, mn, k));
  return v;
}

/// What the kernel leaves in d. Throws what the device finds.
std::vector<float> multiply(int cols, bool a_transposed, bool b_transposed, Mistake mistake, int threads = kThreads) {
  const Array<bf16> a(operand(1, kRows, a_transposed)), b(operand(2, cols, b_transposed));
  const Array<float> d(std::size_t(kThreads * cols / 2));
  launch("warpgroup", warpgroup_probe(cols, a_transposed, b_transposed), dim3(1), dim3(unsigned(threads)),
         warpgroup_probe_shared_bytes(cols), {}, WarpgroupProbe{a.data(), b.data(), d.data(), mistake});
  return d.values();
}

/// PTX ISA, wgmma.mma_async.m64nNk16, fragment of D.
bool right(const std::vector<float>& d, int cols) {
  bool all = true;
  for (int t = 0; t < kThreads; ++t)
    for (int i = 0; i < cols / 2; ++i) {
      const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2), column = 8 * (i / 4) + 2 * (t % 4) + i % 2;
      float sum = 0.0f;
      for (int k = 0; k < kDepth; ++k) sum += number(1, row, k) * number(2, column, k);
      all = all && d[std::size_t(t * cols / 2 + i)] == sum;
    }
  return all;
}

}  // namespace

TEST_CASE("words: products of a warpgroup, both widths and every form") {
  if (!(device(), warpgroup_products())) {
    MESSAGE("SKIPPED: this GPU, or the code that was built, has no warpgroup products");
    return;
  }
  const Restore restore;
  int order = 0;
  for (const int cols : {128, 256})
    for (int form = 0; form < 4; ++form) {
      use_schedule(order++ % 4);
      CAPTURE(cols);
      CAPTURE(form);
      CHECK(right(multiply(cols, (form & 1) != 0, (form & 2) != 0, Mistake::none), cols));
    }
}

#if !EVERGRAD_IS_CUDA
TEST_CASE("words: what is wrong around a product of a warpgroup is found, and named") {
  const Restore restore;
  use_schedule(0);
  const auto found = [](Mistake mistake, int threads = kThreads) -> std::string {
    try {
      return right(multiply(128, true, false, mistake, threads), 128) ? "nothing" : "wrong";
    } catch (const Error& e) { return e.what(); }
  };
  const auto names = [](const std::string& text, const std::string& part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  names(found(Mistake::none), "nothing");
  names(found(Mistake::copies_not_fenced), "fence_for_products()");
  names(found(Mistake::sums_not_fenced), "without warpgroup_fence()");
  names(found(Mistake::sums_read_early), "wrong");
#if defined(EVERGRAD_VARIANT_RACE)
  names(found(Mistake::writes_not_fenced), "thread 0 wrote");
  names(found(Mistake::operand_overwritten), "race in shared memory");
#else
  names(found(Mistake::writes_not_fenced), "nothing");  // plain writes are not watched
  names(found(Mistake::operand_overwritten), "changed while it was in flight");
#endif
  names(found(Mistake::overwritten_after_barrier), "changed while it was in flight");
  names(found(Mistake::left_in_flight), "exits with products");
  names(found(Mistake::three_warps), "all four warps");
  names(found(Mistake::foreign_descriptor), "panel_descriptor()");
  names(found(Mistake::operand_outside), "of dynamic shared memory");
  names(found(Mistake::none, 96), "ends within this warpgroup");
  // Without the barrier a warp may multiply before others' copies have landed: in some orders of the threads.
#if defined(EVERGRAD_VARIANT_RACE)
  names(found(Mistake::no_barrier), "race in shared memory");
#else
  bool seen = false;
  for (int order = 1; order <= 8; ++order) use_schedule(order), seen = seen || found(Mistake::no_barrier) != "nothing";
  CHECK(seen);
#endif
}
#endif

}  // namespace eg::EVERGRAD_BACKEND
