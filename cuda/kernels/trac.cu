// cuda/kernels/trac.cu - the passes of TRAC over the weights (Muppidi et al. 2024, arXiv:2405.16642; methods.md A.4).
//
// Math     as in engine/reference/trac.cpp; the tuners are engine/trac_tune.h, run by one thread
// Shapes   whole arenas
// Traffic  measure: gradient and way (or weight and anchor) once; apply: weight, before, anchor, way in, weight, way and
//          the bf16 copy out: 26 bytes a parameter
// Work     a few FLOP a weight: bound by memory
// Mapping  packs of 8, grid-stride; measure: 256 blocks at most, whose sums, in double, are added in block order
// Limits   any size and alignment
#include "cuda/kernels/trac.h"

#include "engine/trac_tune.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

__global__ void __launch_bounds__(256) trac_measure_device(const TracParams p) {
  double sum = 0.0;
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    float g[kPack], way[kPack];
    load_some(p.grad, i, count, wide, g);
    if (p.way.data) {
      load_some(p.way, i, count, wide, way);
    } else {
      float anchor[kPack];
      load_some(p.weight, i, count, wide, way), load_some(p.anchor, i, count, wide, anchor);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) way[k] -= anchor[k];
    }
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) sum += double(g[k]) * double(way[k]);
  });
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) p.partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(32) trac_tune_device(const TracParams p) {
  if (threadIdx.x != 0 || !p.step->finite) return;
  double h = 0.0;
  for (int i = 0; i < p.blocks; ++i) h += p.partials[i];
  h *= p.step->clip_scale;
  if (!p.way.data) h /= p.state[kTracScale] + kTracEps;
  if (h - h == 0.0)
    trac_tune(p.state, h);
  else
    p.step->finite = 0;
}

__global__ void __launch_bounds__(256) trac_apply_device(const TracParams p) {
  if (!p.step->finite) return;
  const double s = p.state[kTracScale];
  const float scale = s > 0.0 ? float(s) : 0.0f, divisor = float(p.state[kTracBefore] + kTracEps);
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    float w[kPack], before[kPack], anchor[kPack], way[kPack];
    load_some(p.weight, i, count, wide, w), load_some(p.before, i, count, wide, before);
    load_some(p.anchor, i, count, wide, anchor);
    if (p.way.data) {
      load_some(p.way, i, count, wide, way);
    } else {
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) way[k] = (before[k] - anchor[k]) / divisor;
    }
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      way[k] += w[k] - before[k];
      w[k] = anchor[k] + scale * way[k];
    }
    if (p.way.data) store_some(p.way, i, count, wide, way);
    store_some(p.weight, i, count, wide, w);
    if (p.work.data) store_some(p.work, i, count, wide, w);
  });
}

}  // namespace

void (*trac_measure_kernel())(TracParams) { return &trac_measure_device; }
void (*trac_tune_kernel())(TracParams) { return &trac_tune_device; }
void (*trac_apply_kernel())(TracParams) { return &trac_apply_device; }

}  // namespace eg::EVERGRAD_BACKEND
