// cuda/kernels/plasticity.cu - passes of plasticity methods over the weights (methods.md B.5, B.6, B.7, B.10, A.6).
//
// Math     as in engine/reference/plasticity.cpp
// Shapes   segments of the flat arena
// Traffic  penalty: gradient in and out, weight, anchor; perturb: weight in and out, anchor, the bf16 copy out; project:
//          weight twice in, once out; ascent: gradient twice in, weight in, the other weights out
// Work     a few FLOP a weight; with noise about 200 (ten rounds of Philox, a logarithm and a cosine)
// Mapping  one block per chunk of a segment, packs of 8 per thread; 87 segments in one launch
// Order    a segment's norm is the sum of its chunks' sums, in double, in chunk order: the same on every card
// Limits   segments may begin and end anywhere; packs that are not whole go element by element
#include "cuda/kernels/plasticity.h"

#include "cuda/kernels/normal.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

__global__ void __launch_bounds__(kUpdateThreads) penalty_device(const PenaltyParams p) {
  const Chunk c = chunk_of(p.table, kUpdateChunk);
  const float pull = p.table.segment[c.segment].pull;
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float g[kPack], w[kPack], anchor[kPack] = {};
    load_some(p.grad, i, count, wide, g), load_some(p.weight, i, count, wide, w);
    if (p.anchor.data) load_some(p.anchor, i, count, wide, anchor);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) g[k] += pull * (w[k] - anchor[k]);
    store_some(p.grad, i, count, wide, g);
  });
}

__global__ void __launch_bounds__(kUpdateThreads) perturb_device(const PerturbParams p) {
  if (!p.step->finite && !p.even_if_skipped) return;
  const Chunk c = chunk_of(p.table, kUpdateChunk);
  const WeightSegment& s = p.table.segment[c.segment];
  const Key key{p.step->seed, p.stream, std::uint32_t(p.step->step)};
  const double rate = p.noise_slot < 0 ? 1.0 : p.step->slot[p.noise_slot].lr;
  const float noise = float(double(s.noise) * rate);
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float w[kPack], anchor[kPack] = {};
    load_some(p.weight, i, count, wide, w);
    if (p.anchor.data) load_some(p.anchor, i, count, wide, anchor);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) w[k] = s.keep * w[k] + s.shift + s.pull * anchor[k];
    if (s.noise != 0.0f) {
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k)
        if (k < count) w[k] += noise * normal_of(key, i + k);
    }
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) w[k] = fminf(fmaxf(w[k], -s.bound), s.bound);
    store_some(p.weight, i, count, wide, w);
    if (p.work.data) store_some(p.work, i, count, wide, w);
  });
}

__global__ void __launch_bounds__(kUpdateThreads) project_sums_device(const ProjectParams p) {
  const Chunk c = chunk_of(p.table, kNormChunk);
  double sum = 0.0;
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float w[kPack];
    load_some(p.weight, i, count, wide, w);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) sum += double(w[k]) * double(w[k]);
  });
  sum = block_sum<kUpdateThreads>(sum);
  if (threadIdx.x == 0) p.partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kFactorThreads) project_factors_device(const ProjectParams p) {
  const int s = int(threadIdx.x);
  if (s >= p.table.count) return;
  double sum = 0.0;
  for (std::int32_t i = p.table.first_chunk[s]; i < p.table.first_chunk[s + 1]; ++i) sum += p.partials[i];
  p.factors[s] = sum == 0.0 ? 0.0f : float(double(p.table.segment[s].bound) / sqrt(sum));
}

__global__ void __launch_bounds__(kUpdateThreads) project_scale_device(const ProjectParams p) {
  if (!p.step->finite || p.step->step % p.every != 0) return;
  const Chunk c = chunk_of(p.table, kNormChunk);
  const float factor = p.factors[c.segment];
  if (factor == 0.0f) return;  // a segment of zeros stays
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float w[kPack];
    load_some(p.weight, i, count, wide, w);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) w[k] *= factor;
    store_some(p.weight, i, count, wide, w);
    if (p.work.data) store_some(p.work, i, count, wide, w);
  });
}

__global__ void __launch_bounds__(kUpdateThreads) ascent_sums_device(const AscentParams p) {
  const Chunk c = chunk_of(p.table, kNormChunk);
  double sum = 0.0;
  if (p.table.segment[c.segment].pull != 0.0f)
    for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
      float g[kPack], w[kPack];
      load_some(p.grad, i, count, wide, g);
      if (p.adaptive) load_some(p.weight, i, count, wide, w);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) {
        const double x = p.adaptive ? double(w[k]) * double(g[k]) : double(g[k]);
        sum += x * x;
      }
    });
  sum = block_sum<kUpdateThreads>(sum);
  if (threadIdx.x == 0) p.partials[p.first_partial + blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kUpdateThreads) ascent_factor_device(const AscentParams p) {
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < p.count; i += kUpdateThreads) sum += p.partials[i];
  sum = block_sum<kUpdateThreads>(sum);
  const double nothing = sum - sum;  // NaN when the sum is not finite
  if (threadIdx.x == 0) p.factor[0] = nothing == 0.0 ? 1.0 / (sqrt(sum) + 1e-12) : nothing;
}

__global__ void __launch_bounds__(kUpdateThreads) ascent_device(const AscentParams p) {
  const Chunk c = chunk_of(p.table, kUpdateChunk);
  const float pull = p.table.segment[c.segment].pull;
  const float factor = float(double(pull) * p.factor[0]);
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float w[kPack], g[kPack];
    load_some(p.weight, i, count, wide, w);
    if (pull != 0.0f) {
      load_some(p.grad, i, count, wide, g);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) w[k] += factor * (p.adaptive ? w[k] * w[k] : 1.0f) * g[k];
    }
    store_some(p.to, i, count, wide, w);
  });
}

struct UnitTile {
  float v[kUnitLanes][kUnitColumns];
};

__global__ void __launch_bounds__(kUnitColumns* kUnitLanes) utility_device(const UtilityParams p) {
  const std::int64_t f = std::int64_t(blockIdx.x) * kUnitColumns + threadIdx.x;
  const bool finite = p.step->finite != 0;
  UnitTile& tile = static_shared<UnitTile>();
  if (finite && p.utility.data) {
    float sum = 0.0f;
    if (f < p.units)
      for (std::int64_t o = threadIdx.y; o < p.outputs; o += kUnitLanes)
        sum += fabsf(load_at(p.weight_out, o * p.units + f));
    tile.v[threadIdx.y][threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.y != 0 || f >= p.units) return;
  if (finite) {
    p.steps[f] += 1;
    if (p.utility.data) {
      float out = 0.0f;
      EVERGRAD_UNROLL
      for (int lane = 0; lane < kUnitLanes; ++lane) out += tile.v[lane][threadIdx.x];
      const float now = float(p.sum_abs[f] / p.rows) * (out / float(p.outputs));
      store_at(p.utility, f, p.decay * load_at(p.utility, f) + p.rest * now);
    }
    if (p.mean.data) {
      const double rows = *p.row_count;
      store_at(p.mean, f, p.decay * load_at(p.mean, f) + p.rest * float(p.sum[f] / (rows > 1.0 ? rows : 1.0)));
    }
  }
  if (p.keep_every == 0 || p.step->step % p.keep_every != 0) {
    p.sum_abs[f] = 0.0;
    if (p.sum) p.sum[f] = 0.0;
  }
}

__global__ void __launch_bounds__(256) unit_reset_device(const UnitResetParams p) {
  const std::int64_t n = blockIdx.x, unit = p.units[n];
  for (std::int64_t i = threadIdx.x; i < p.inputs; i += blockDim.x)
    store_at(p.array, p.fc1_weight + unit * p.inputs + i, p.rows.data ? load_at(p.rows, n * p.inputs + i) : 0.0f);
  if (threadIdx.x == 0) store_at(p.array, p.fc1_bias + unit, 0.0f);
  for (std::int64_t o = threadIdx.x; o < p.outputs; o += blockDim.x)
    store_at(p.array, p.fc2_weight + o * p.hidden + unit, 0.0f);
}

}  // namespace

void (*penalty_kernel())(PenaltyParams) { return &penalty_device; }
void (*perturb_kernel())(PerturbParams) { return &perturb_device; }
void (*project_sums_kernel())(ProjectParams) { return &project_sums_device; }
void (*project_factors_kernel())(ProjectParams) { return &project_factors_device; }
void (*project_scale_kernel())(ProjectParams) { return &project_scale_device; }
void (*ascent_sums_kernel())(AscentParams) { return &ascent_sums_device; }
void (*ascent_factor_kernel())(AscentParams) { return &ascent_factor_device; }
void (*ascent_kernel())(AscentParams) { return &ascent_device; }
void (*utility_kernel())(UtilityParams) { return &utility_device; }
void (*unit_reset_kernel())(UnitResetParams) { return &unit_reset_device; }

}  // namespace eg::EVERGRAD_BACKEND
