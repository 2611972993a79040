// cuda/kernels/upgd.cu - utility-based perturbed gradient descent (Elsayed & Mahmood 2024, arXiv:2404.00781; methods.md
// A.7).
//
// Math     as in engine/reference/upgd.cpp
// Shapes   segments of the flat arena
// Traffic  gradient, weight and utility twice in, utility, weight and the bf16 copy out: 34 bytes a parameter with fp32
//          gradients. The gate needs the largest utility of all weights, so one pass cannot do
// Work     about 210 FLOP a weight, 200 of them for the noise: ten rounds of Philox, a logarithm and a cosine
// Mapping  one block per chunk of a segment, packs of 8 per thread; 106 segments in one launch
// Order    a maximum does not depend on it
// Limits   segments may begin and end anywhere; packs that are not whole go element by element
#include "cuda/kernels/upgd.h"

#include "cuda/kernels/normal.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

__global__ void __launch_bounds__(kUpdateThreads) upgd_utility_device(const UpgdParams p) {
  if (!p.step->finite) return;
  const Chunk c = chunk_of(p.table, kNormChunk);
  const float clip = float(p.step->clip_scale), beta = float(p.beta), rest = float(1.0 - p.beta);
  float most = float(kUpgdLeastMaximum);
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float w[kPack], g[kPack], u[kPack];
    load_some(p.weight, i, count, wide, w), load_some(p.grad, i, count, wide, g);
    load_some(p.utility, i, count, wide, u);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      u[k] = beta * u[k] - rest * (clip * g[k] * w[k]);
      most = fmaxf(most, u[k]);
    }
    store_some(p.utility, i, count, wide, u);
  });
  most = warp_max(most);
  if (threadIdx.x % 32 == 0)
    p.partials[p.first_partial + std::int64_t(blockIdx.x) * kUpgdWarps + threadIdx.x / 32] = most;
}

__global__ void __launch_bounds__(kUpdateThreads) upgd_largest_device(const UpgdParams p) {
  if (!p.step->finite) return;
  float most = float(kUpgdLeastMaximum);
  for (std::int64_t i = threadIdx.x; i < p.count; i += kUpdateThreads) most = fmaxf(most, p.partials[i]);
  BlockPartials<float, kUpgdWarps>& warps = static_shared<BlockPartials<float, kUpgdWarps>>();
  most = warp_max(most);
  if (threadIdx.x % 32 == 0) warps.v[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kUpgdWarps; ++w) most = fmaxf(most, warps.v[w]);
  *p.largest = most;
}

struct GateScale {
  float value;
};

__global__ void __launch_bounds__(kUpdateThreads) upgd_weight_device(const UpgdParams p) {
  if (!p.step->finite) return;
  const Chunk c = chunk_of(p.table, kUpdateChunk);
  const Segment& s = p.table.segment[c.segment];
  const StepSlot slot = p.step->slot[s.slot];
  GateScale& shared = static_shared<GateScale>();
  if (threadIdx.x == 0) shared.value = float(1.0 / ((1.0 - power(p.beta, slot.t + 1)) * double(*p.largest)));
  __syncthreads();
  const float scale = shared.value;
  const double rate = slot.lr * double(s.lr_scale);
  const float lr = float(rate), shrink = float(1.0 - rate * double(s.weight_decay)), clip = float(p.step->clip_scale);
  const Key key{p.step->seed, p.stream, std::uint32_t(p.step->step)};
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float w[kPack], g[kPack], u[kPack];
    load_some(p.weight, i, count, wide, w), load_some(p.grad, i, count, wide, g);
    load_some(p.utility, i, count, wide, u);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      if (k >= count) continue;
      const float open = 1.0f / (1.0f + expf(u[k] * scale)), d = clip * g[k];
      const float n = p.noise == 0.0f ? 0.0f : p.noise * normal_of(key, i + k);
      w[k] = shrink * w[k] - lr * (p.protects ? (d + n) * open : d + n * open);
    }
    store_some(p.weight, i, count, wide, w);
    if (p.work.data) store_some(p.work, i, count, wide, w);
  });
}

}  // namespace

void (*upgd_utility_kernel())(UpgdParams) { return &upgd_utility_device; }
void (*upgd_largest_kernel())(UpgdParams) { return &upgd_largest_device; }
void (*upgd_weight_kernel())(UpgdParams) { return &upgd_weight_device; }

}  // namespace eg::EVERGRAD_BACKEND
