// tests/words/warpgroup.cu - see warpgroup.h.
#include "tests/words/warpgroup.h"

#include "cuda/wgmma.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr int kRows = kProductRows, kDepth = kPanelWidth;

template <int kCols>
struct Tiles {
  alignas(kPanelAlign) bf16 a[kRows * kDepth];
  alignas(kPanelAlign) bf16 b[kCols * kDepth];
};

template <int kSize, bool kTransposed>
__device__ __forceinline__ void copy_panels(bf16* to, const bf16* from) {
  for (int n = int(threadIdx.x); n < kSize * kDepth / 8; n += kWarpgroup) {
    const int panel = kTransposed ? n / 8 / kDepth : 0, row = n / 8 - panel * kDepth, column = n % 8 * 8;
    const bf16* const source = kTransposed ? from + row * kSize + panel * kPanelWidth + column : from + n * 8;
    cp_async_16(to + panel * kDepth * kPanelWidth + panel_at(row, column), source);
  }
}

template <int kCols, bool kTransA, bool kTransB>
__global__ void __launch_bounds__(kWarpgroup) warpgroup_device(const WarpgroupProbe p) {
  Tiles<kCols>& s = dynamic_shared<Tiles<kCols>>();
  const int t = int(threadIdx.x);
  constexpr int kPanelBytes = kDepth * kPanelWidth * int(sizeof(bf16));
  copy_panels<kRows, kTransA>(s.a, p.a);
  copy_panels<kCols, kTransB>(s.b, p.b);
  cp_async_commit();
  cp_async_wait<0>();
  if (p.mistake != Mistake::copies_not_fenced) fence_for_products();
  if (p.mistake == Mistake::writes_not_fenced && t == 0) s.b[0] = p.b[0];  // what stands there already
  if (p.mistake != Mistake::no_barrier) __syncthreads();

  float d[kCols / 2];
  const bool part = p.mistake != Mistake::three_warps || t < 3 * kWarp;
  if (part) {
    if (p.mistake != Mistake::sums_not_fenced) warpgroup_fence();
    EVERGRAD_UNROLL
    for (int k = 0; k < kDepth; k += kProductDepth) {
      std::uint64_t a = panel_descriptor(s.a + (kTransA ? k * kPanelWidth : k), kTransA ? kPanelBytes : 16);
      if (p.mistake == Mistake::foreign_descriptor) a &= ~(std::uint64_t(1) << 62);
      if (p.mistake == Mistake::operand_outside) a += 0x3000;  // 196,608 bytes further on
      const std::uint64_t b = panel_descriptor(s.b + (kTransB ? k * kPanelWidth : k), kTransB ? kPanelBytes : 16);
      warpgroup_mma<kCols, kTransA, kTransB>(d, a, b, k > 0);
    }
    warpgroup_commit();
  }
  if (p.mistake == Mistake::overwritten_after_barrier) __syncthreads();  // which waits for threads, not for products
  if (p.mistake >= Mistake::operand_overwritten && p.mistake <= Mistake::overwritten_after_barrier && t == 0)
    s.b[0] = to_bf16(1.0f + float(s.b[0]));
  float* const out = p.d + t * (kCols / 2);
  if (p.mistake == Mistake::sums_read_early)
    for (int i = 0; i < kCols / 2; ++i) out[i] = d[i];
  if (part && p.mistake != Mistake::left_in_flight) warpgroup_wait<0>();
  if (p.mistake == Mistake::sums_read_early) return;
  EVERGRAD_UNROLL
  for (int i = 0; i < kCols / 2; ++i) out[i] = d[i];
}

template <int kCols>
WarpgroupKernel pick(bool a_transposed, bool b_transposed) {
  if (a_transposed) return b_transposed ? &warpgroup_device<kCols, true, true> : &warpgroup_device<kCols, true, false>;
  return b_transposed ? &warpgroup_device<kCols, false, true> : &warpgroup_device<kCols, false, false>;
}

}  // namespace

WarpgroupKernel warpgroup_probe(int cols, bool a_transposed, bool b_transposed) {
  return cols == 256 ? pick<256>(a_transposed, b_transposed) : pick<128>(a_transposed, b_transposed);
}
std::size_t warpgroup_probe_shared_bytes(int cols) { return cols == 256 ? sizeof(Tiles<256>) : sizeof(Tiles<128>); }

}  // namespace eg::EVERGRAD_BACKEND
