// apps/bench/ceilings.cpp - register-only multiply-add loops and large copies.
//
// A product needs two things at once: arithmetic units that are never idle, and operands that arrive in time. The first
// loop below leaves out the second (twelve independent accumulators, no memory), so no matrix product can be faster;
// the copy leaves out the first, so no elementwise kernel that misses the caches can be faster.
#include "apps/bench/ceilings.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/ladder.h"
#include "engine/parallel.h"
#include "engine/rng.h"
#include "engine/tensor.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace eg {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr std::int64_t kRounds = 20000;
constexpr int kChains = 12;  // latency 4 or 5 times 2 units per cycle needs at least 10

volatile float sink;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void fma_avx512() {
  __m512 acc[kChains], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
  for (auto& x : acc) x = _mm512_set1_ps(1.0f);
  for (std::int64_t r = 0; r < kRounds; ++r)
#pragma GCC unroll 12
    for (auto& x : acc) x = _mm512_fmadd_ps(x, a, b);
  __m512 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, acc[i]);
  sink = _mm512_cvtss_f32(sum);
}

__attribute__((target("avx2,fma"))) void fma_avx2() {
  __m256 acc[kChains], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
  for (auto& x : acc) x = _mm256_set1_ps(1.0f);
  for (std::int64_t r = 0; r < kRounds; ++r)
#pragma GCC unroll 12
    for (auto& x : acc) x = _mm256_fmadd_ps(x, a, b);
  __m256 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm256_add_ps(sum, acc[i]);
  sink = _mm256_cvtss_f32(sum);
}

__attribute__((target("avx512f,avx512bf16"))) void dot_bf16() {
  const __m512i ones = _mm512_set1_epi32(0x3f803f80);  // two bf16 ones per lane
  __m512bh a, b;
  std::memcpy(&a, &ones, sizeof(a));
  std::memcpy(&b, &ones, sizeof(b));
  __m512 acc[kChains];
  for (auto& x : acc) x = _mm512_setzero_ps();
  for (std::int64_t r = 0; r < kRounds; ++r)
#pragma GCC unroll 12
    for (auto& x : acc) x = _mm512_dpbf16_ps(x, a, b);
  __m512 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, acc[i]);
  sink = _mm512_cvtss_f32(sum);
}
#endif

void multiply_add_generic() {
  float acc[kChains];
  for (auto& x : acc) x = 1.0f;
  for (std::int64_t r = 0; r < kRounds; ++r)
    for (auto& x : acc) x = x * 0.999f + 1e-3f;
  float sum = 0;
  for (const float x : acc) sum += x;
  sink = sum;
}

/// GFLOP/s of `body`, which does flops_per_call operations, run by every thread at once; the best of several rounds.
template <class Body>
double best_gflops(double flops_per_call, double seconds, const Body& body) {
  double best = 0.0;
  const auto start = Clock::now();
  do {
    const auto t = Clock::now();
    parallel_for(num_threads(), 1, [&](std::int64_t, std::int64_t, std::int64_t) { body(); });
    best = std::max(best, flops_per_call * num_threads() / seconds_since(t) * 1e-9);
  } while (seconds_since(start) < seconds);
  return best;
}

template <class Body>
double best_gb_per_s(double bytes, double seconds, const Body& body) {
  double best = 0.0;
  const auto start = Clock::now();
  do {
    const auto t = Clock::now();
    body();
    best = std::max(best, bytes / seconds_since(t) * 1e-9);
  } while (seconds_since(start) < seconds);
  return best;
}

/// GFLOP/s of a GPU's arithmetic on registers; the best of several rounds.
double best_arithmetic(Device device, const Ladders& own, DType dtype, double seconds) {
  constexpr std::int64_t kBlocks = 32 * 132;  // many for each multiprocessor of an H100: the last ones cost little
  constexpr int kLoops = 4096;
  const Tensor out = Tensor::zeros({kBlocks * 128}, DType::f32, device);
  own.arithmetic(out.view(), dtype, 1, {});
  runtime(device).synchronize({});
  double best = 0.0;
  const auto start = Clock::now();
  do {
    const auto t = Clock::now();
    const double flops = own.arithmetic(out.view(), dtype, kLoops, {});
    runtime(device).synchronize({});
    best = std::max(best, flops / seconds_since(t) * 1e-9);
  } while (seconds_since(start) < seconds);
  return best;
}

Ceilings of_device(Device device, double seconds) {
  const bool cuda = device.type == DeviceType::cuda;
  const std::size_t bytes = cuda ? std::size_t(1) << 30 : std::size_t(1) << 24;  // past a GPU's second-level cache
  const int copies = cuda ? 10 : 1;
  const std::int64_t n = std::int64_t(bytes);
  const Tensor from = Tensor::empty({n}, DType::u8, device), to = Tensor::zeros({n}, DType::u8, device);
  // Random bytes, since memory may be quicker with zeros: a mebibyte of them, doubled on the device.
  std::vector<std::uint32_t> some(std::size_t(1) << 18);
  for (std::size_t i = 0; i < some.size(); ++i) some[i] = key(1, "bench", "copy").bits(i);
  std::size_t filled = some.size() * sizeof some[0];
  runtime(device).copy_from_host(from.data(), some.data(), filled, {});
  for (; filled < bytes; filled *= 2)
    runtime(device).copy_within(static_cast<char*>(from.data()) + filled, from.data(), filled, {});
  runtime(device).synchronize({});
  Ceilings c;
  c.unit = "device copy";
  c.copy_gb_per_s = best_gb_per_s(2.0 * double(bytes) * copies, seconds, [&] {
    for (int i = 0; i < copies; ++i) runtime(device).copy_within(to.data(), from.data(), bytes, {});
    runtime(device).synchronize({});
  });
  if (const Ladders* const own = ladders(device); cuda && own && own->arithmetic) {
    c.unit = "mma.sync and fmaf on registers, device copy";
    c.bf16_gflops = best_arithmetic(device, *own, DType::bf16, seconds);
    c.fp32_gflops = best_arithmetic(device, *own, DType::f32, seconds);
  }
  return c;
}

}  // namespace

Ceilings measure_ceilings(Device device, double seconds) {
  if (!device.is_host()) return of_device(device, seconds);
  Ceilings c;
  const double per_lane = 2.0 * kRounds * kChains;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    c.unit = "avx512";
    c.fp32_gflops = best_gflops(per_lane * 16, seconds, fma_avx512);
    if (__builtin_cpu_supports("avx512bf16")) c.bf16_gflops = best_gflops(per_lane * 32, seconds, dot_bf16);
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    c.unit = "avx2+fma";
    c.fp32_gflops = best_gflops(per_lane * 8, seconds, fma_avx2);
  }
#endif
  if (c.unit.empty()) {
    c.unit = "generic";
    c.fp32_gflops = best_gflops(per_lane, seconds, multiply_add_generic);
  }
  constexpr std::int64_t n = 1 << 24;  // 64 MiB an array: past any level-3 cache a core gets to itself
  std::vector<float> a(n, 1.0f), b(n, 2.0f), out(n, 0.0f);
  c.copy_gb_per_s = best_gb_per_s(8.0 * n, seconds, [&] {
    parallel_for(n, 1 << 16, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      std::memcpy(out.data() + begin, a.data() + begin, std::size_t(end - begin) * 4);
    });
  });
  c.triad_gb_per_s = best_gb_per_s(12.0 * n, seconds, [&] {
    parallel_for(n, 1 << 16, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      for (std::int64_t i = begin; i < end; ++i) out[std::size_t(i)] = a[std::size_t(i)] + 0.5f * b[std::size_t(i)];
    });
  });
  return c;
}

}  // namespace eg
