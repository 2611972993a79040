// cuda/kernels/crelu.cu - concatenated ReLU (Shang et al. 2016, arXiv:1603.05201) and its gradient.
//
// Math     y[r] = {max(x[r], 0), max(-x[r], 0)};  dx[r,f] (+)= dy[r,f] where x > 0, -dy[r,F+f] where x < 0
// Shapes   x [R,F], y [R,2F]
// Traffic  forward: x in, twice as much out; backward: x and dy in (3 F a row), dx out; 16 bytes a load
// Work     two comparisons an element: bound by memory
// Mapping  a thread takes packs of 8 elements of x, grid-stride
// Limits   any size; rows that are no multiple of 8, and unaligned operands, go element by element
#include "cuda/kernels/crelu.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

// Comparisons, not fmaxf, which would turn NaN into 0.
__device__ __forceinline__ float upper(float x) { return x < 0.0f ? 0.0f : x; }
__device__ __forceinline__ float lower(float x) { return x > 0.0f ? 0.0f : -x; }
__device__ __forceinline__ float passed(float x, float above, float below) {
  return x > 0.0f ? above : x < 0.0f ? -below : 0.0f;
}

/// Where the pair of element i of x begins in y.
__device__ __forceinline__ std::int64_t pair_of(const CreluParams& p, std::int64_t i) {
  return i + i / p.width * p.width;
}

__global__ void __launch_bounds__(256) crelu_fwd_device(const CreluParams p) {
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    float x[kPack];
    load_some(p.x, i, count, wide, x);
    if (wide) {
      const std::int64_t to = pair_of(p, i);
      float y[kPack];
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) y[k] = upper(x[k]);
      store_pack(p.y, to, y);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) y[k] = lower(x[k]);
      store_pack(p.y, to + p.width, y);
      return;
    }
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      if (k >= count) continue;
      const std::int64_t to = pair_of(p, i + k);
      store_at(p.y, to, upper(x[k])), store_at(p.y, to + p.width, lower(x[k]));
    }
  });
}

__global__ void __launch_bounds__(256) crelu_bwd_device(const CreluParams p) {
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    float x[kPack], above[kPack] = {}, below[kPack] = {}, old[kPack] = {};
    load_some(p.x, i, count, wide, x);
    if (p.accumulate) load_some(p.dx, i, count, wide, old);
    if (wide) {
      const std::int64_t from = pair_of(p, i);
      load_pack(p.y, from, above), load_pack(p.y, from + p.width, below);
    } else {
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) {
        if (k >= count) continue;
        const std::int64_t from = pair_of(p, i + k);
        above[k] = load_at(p.y, from), below[k] = load_at(p.y, from + p.width);
      }
    }
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) x[k] = old[k] + passed(x[k], above[k], below[k]);
    store_some(p.dx, i, count, wide, x);
  });
}

}  // namespace

void (*crelu_fwd_kernel())(CreluParams) { return &crelu_fwd_device; }
void (*crelu_bwd_kernel())(CreluParams) { return &crelu_bwd_device; }

}  // namespace eg::EVERGRAD_BACKEND
