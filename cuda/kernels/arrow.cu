// cuda/kernels/arrow.cu - ARROW (arXiv:2603.07787; methods.md A.3): what a step reads and writes of the P parameters.
//
// Math     observe: ring[next] = g, K[next][j] = <ring[next], ring[j]>; solve: arrow_solve.cu; update: u = sum_j c_j
//          ring[j], w = (1 - lr decay) w - lr u
// Traffic  observe: g once, ring W times, one slot written: (W + 2) P values; update: ring W + 1 times, weight and its
//          copy
// Work     2 W P FLOP each: bound by memory
// Mapping  observe: a block holds 4096 gradient values in registers and walks over the slots; its sums, in double, are
//          one row of partials, which a second launch adds in block order. update, base: packs of 8, all targets of a
//          group in one launch
// Order    fixed by the sizes alone
// Limits   a window of up to 64 gradients; 24 targets a launch, more take more launches; what cannot be read in packs goes
//          element by element
#include "cuda/kernels/arrow.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

using Packs = float[kObservePacks][kPack];

/// This thread's part of the block's chunk: up to kObservePacks packs. Elements beyond the end are 0.
__device__ __forceinline__ void load_chunk(const Operand& o, std::int64_t from, std::int64_t n, bool wide, Packs& v) {
  EVERGRAD_UNROLL
  for (int q = 0; q < kObservePacks; ++q) {
    const std::int64_t i =
        (std::int64_t(blockIdx.x) * kObservePacks + q) * kArrowThreads * kPack + std::int64_t(threadIdx.x) * kPack;
    const int count = i >= n ? 0 : n - i < kPack ? int(n - i) : kPack;
    load_some(o, from + i, count, wide && count == kPack, v[q]);
  }
}
__device__ __forceinline__ double chunk_dot(const Packs& a, const Packs& b) {
  double sum = 0.0;
  EVERGRAD_UNROLL
  for (int q = 0; q < kObservePacks; ++q) {
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) sum += double(a[q][k]) * double(b[q][k]);
  }
  return sum;
}

__global__ void __launch_bounds__(kArrowThreads) observe_device(const ObserveParams p) {
  const std::int64_t newest = p.state->next, filled = p.state->filled;
  const int entries = 2 * p.slots + 3;
  double* const mine = p.partials + std::int64_t(blockIdx.x) * entries;
  Packs g, stored, other;
  load_chunk(p.grad, 0, p.n, p.wide, g);
  EVERGRAD_UNROLL
  for (int q = 0; q < kObservePacks; ++q) {
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) stored[q][k] = p.ring.type == DType::bf16 ? float(to_bf16(g[q][k])) : g[q][k];
    const std::int64_t i =
        (std::int64_t(blockIdx.x) * kObservePacks + q) * kArrowThreads * kPack + std::int64_t(threadIdx.x) * kPack;
    const int count = i >= p.n ? 0 : p.n - i < kPack ? int(p.n - i) : kPack;
    store_some(p.ring, newest * p.column + p.begin + i, count, p.wide && count == kPack, stored[q]);
  }
  if (!p.gram) return;
  for (std::int64_t back = 0; back <= filled && back < p.slots; ++back) {
    const std::int64_t j = (newest - back + p.slots) % p.slots;
    if (back == 0) {
      EVERGRAD_UNROLL
      for (int q = 0; q < kObservePacks; ++q) {
        EVERGRAD_UNROLL
        for (int k = 0; k < kPack; ++k) other[q][k] = stored[q][k];
      }
    } else {
      load_chunk(p.ring, j * p.column + p.begin, p.n, p.wide, other);
    }
    const double k = block_sum<kArrowThreads>(chunk_dot(stored, other));
    if (threadIdx.x == 0) mine[j] = k;
    if (!p.dots) continue;
    const double d = block_sum<kArrowThreads>(chunk_dot(g, other));
    if (threadIdx.x == 0) mine[p.slots + j] = d;
  }
  if (!p.dots) return;
  double sums[3] = {block_sum<kArrowThreads>(chunk_dot(g, g)), 0.0, 0.0};
  if (p.vector.data) {
    load_chunk(p.vector, 0, p.n, p.wide, other);
    sums[1] = block_sum<kArrowThreads>(chunk_dot(g, other));
    sums[2] = block_sum<kArrowThreads>(chunk_dot(stored, other));
  }
  if (threadIdx.x == 0)
    for (int i = 0; i < 3; ++i) mine[2 * p.slots + i] = sums[i];
}

__global__ void __launch_bounds__(160) finish_observe_device(const ObserveParams p) {
  const std::int64_t newest = p.state->next, filled = p.state->filled;
  const int entries = 2 * p.slots + 3, e = int(threadIdx.x);
  if (e >= entries) return;
  const bool extra = e >= 2 * p.slots, of_dots = e >= p.slots;
  const std::int64_t j = e % p.slots, back = (newest - j + p.slots) % p.slots;
  if (of_dots && !p.dots) return;
  if (!extra && back > filled) return;
  double sum = 0.0;
  for (int b = 0; b < p.blocks; ++b) sum += p.partials[std::int64_t(b) * entries + e];
  if (extra)
    p.dots[p.slots + (e - 2 * p.slots)] = sum;
  else if (of_dots)
    p.dots[j] = sum;
  else
    p.gram[newest * p.slots + j] = p.gram[j * p.slots + newest] = sum;
}

struct Part {
  int target;
  std::int64_t begin;
};
__device__ __forceinline__ Part part_of(const TargetTable& t) {
  int s = 0;
  while (s + 1 < t.count && std::int32_t(blockIdx.x) >= t.first_chunk[s + 1]) ++s;
  return {s, (std::int64_t(blockIdx.x) - t.first_chunk[s]) * kArrowChunk};
}

/// AdamW's bias correction of slot `slot`: 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t).
__device__ __forceinline__ void bias_correction(const StepRecord& step, int slot, double beta1, double beta2,
                                                float& first, float& second) {
  const std::int64_t t = step.slot[slot].t + 1;
  first = float(1.0 / (1.0 - power(beta1, t))), second = float(1.0 / sqrt(1.0 - power(beta2, t)));
}

struct BaseShared {
  float first, second;
};

__global__ void __launch_bounds__(kArrowThreads) base_device(const BaseParams p) {
  if (!p.step->finite) return;
  const Part part = part_of(p.table);
  const Target& t = p.table.target[part.target];
  BaseShared& shared = static_shared<BaseShared>();
  if (threadIdx.x == 0) bias_correction(*p.step, p.slot, p.beta1, p.beta2, shared.first, shared.second);
  __syncthreads();
  const float clip = float(p.step->clip_scale), beta1 = float(p.beta1), beta2 = float(p.beta2);
  const float rest1 = float(1.0 - p.beta1), rest2 = float(1.0 - p.beta2);
  const std::int64_t i = part.begin + std::int64_t(threadIdx.x) * kPack;
  const int count = i >= t.n ? 0 : t.n - i < kPack ? int(t.n - i) : kPack;
  const bool wide = t.wide && count == kPack;
  float g[kPack], m[kPack], v[kPack];
  load_some(t.grad, i, count, wide, g), load_some(t.m, i, count, wide, m), load_some(t.v, i, count, wide, v);
  double sum = 0.0;
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) {
    const float d = clip * g[k];
    m[k] = beta1 * m[k] + rest1 * d;
    v[k] = beta2 * v[k] + rest2 * d * d;
    const float direction = m[k] * shared.first / (sqrtf(v[k]) * shared.second + p.eps);
    if (k < count) sum += double(direction) * double(direction);
  }
  store_some(t.m, i, count, wide, m), store_some(t.v, i, count, wide, v);
  sum = block_sum<kArrowThreads>(sum);
  if (threadIdx.x == 0) p.partials[p.first_partial + blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kArrowThreads) finish_base_device(const BaseParams p) {
  if (!p.step->finite) return;
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < p.count; i += kArrowThreads) sum += p.partials[i];
  sum = block_sum<kArrowThreads>(sum);
  if (threadIdx.x == 0) p.state->norm_sq_base = sum;
}

/// What all threads of an update need, worked out once per block.
struct UpdateShared {
  float coefficient[kMostSlots];
  float first, second;  // bias correction
  float factor;         // grafting
  float base_factor;    // length of the base direction in a norm control
  float lr, shrink, clip, vector;
};

__device__ __forceinline__ void prepare(const UpdateParams& p, float weight_decay, UpdateShared& u) {
  const ArrowState& s = *p.state;
  const double base_lr = p.step->slot[p.base_slot].lr;
  bias_correction(*p.step, p.slot, p.beta1, p.beta2, u.first, u.second);
  const double wanted = p.graft == ArrowGraft::sgd ? s.norm_sq_gradient : s.norm_sq_base;
  u.factor = p.graft == ArrowGraft::none || !(s.norm_sq_update > 0.0) ? 1.0f : float(sqrt(wanted / s.norm_sq_update));
  u.lr = float(s.use_base ? base_lr : p.step->slot[p.slot].lr);
  u.shrink = float(1.0 - base_lr * double(weight_decay));
  u.clip = float(p.step->clip_scale), u.vector = float(s.vector_coefficient);
}

/// AdamW's direction where moments exist, else the clipped gradient; as long as ARROW's step in a norm control.
__device__ __forceinline__ float base_factor(const UpdateParams& p, bool moments) {
  const double square = moments ? p.state->norm_sq_base : p.state->norm_sq_gradient;
  return p.state->use_base || !(square > 0.0) ? 1.0f : float(sqrt(p.state->norm_sq_update / square));
}

__global__ void __launch_bounds__(kArrowThreads) update_device(const UpdateParams p) {
  if (!p.step->finite) return;
  const Part part = part_of(p.table);
  const Target& t = p.table.target[part.target];
  UpdateShared& shared = static_shared<UpdateShared>();
  if (threadIdx.x == 0) prepare(p, t.weight_decay, shared), shared.base_factor = base_factor(p, t.m.data != nullptr);
  for (int j = int(threadIdx.x); j <= p.window; j += kArrowThreads)
    shared.coefficient[j] = float(p.state->coefficient[j]);
  __syncthreads();
  const bool committed = p.state->committed != 0, base = p.state->use_base != 0 || (p.norm_control && committed);
  const std::int64_t i = part.begin + std::int64_t(threadIdx.x) * kPack;
  const int count = i >= t.n ? 0 : t.n - i < kPack ? int(t.n - i) : kPack;
  if (count == 0) return;
  const bool wide = t.wide && count == kPack;
  float w[kPack], g[kPack], b[kPack] = {}, u[kPack] = {}, x[kPack];
  load_some(t.grad, i, count, wide, g);
  if (t.momentum.data) load_some(t.momentum, i, count, wide, b);
  const bool vector_is_momentum = p.precondition_momentum && t.momentum.data;
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) {
    g[k] *= shared.clip;  // from here on v, the vector that is preconditioned
    if (committed && vector_is_momentum) g[k] = b[k] = p.mu * b[k] + g[k];
  }
  if (base && t.m.data) {
    load_some(t.m, i, count, wide, u), load_some(t.v, i, count, wide, x);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k)
      u[k] = shared.base_factor * (u[k] * shared.first / (sqrtf(x[k]) * shared.second + p.eps));
  } else if (base) {
    load_some(t.grad, i, count, wide, x);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) u[k] = shared.base_factor * (shared.clip * x[k]);
  } else if (committed) {
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) u[k] = shared.vector == 0.0f ? 0.0f : shared.vector * g[k];
    for (int j = 0; j <= p.window; ++j) {
      const float c = shared.coefficient[j];
      if (c == 0.0f) continue;
      load_some(t.ring, j * t.n + i, count, wide, x);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) u[k] += c * x[k];
    }
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      u[k] *= shared.factor;
      if (t.momentum.data && !p.precondition_momentum) u[k] += p.mu * b[k], b[k] = u[k];
    }
  }
  load_some(t.weight, i, count, wide, w);  // not before the ring is read: its registers would spill on sm_90a
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) w[k] = shared.shrink * w[k] - shared.lr * u[k];
  store_some(t.weight, i, count, wide, w);
  if (t.momentum.data) store_some(t.momentum, i, count, wide, b);
  if (t.work.data) store_some(t.work, i, count, wide, w);
}

}  // namespace

void (*observe_kernel())(ObserveParams) { return &observe_device; }
void (*finish_observe_kernel())(ObserveParams) { return &finish_observe_device; }
void (*base_kernel())(BaseParams) { return &base_device; }
void (*finish_base_kernel())(BaseParams) { return &finish_base_device; }
void (*update_kernel())(UpdateParams) { return &update_device; }

}  // namespace eg::EVERGRAD_BACKEND
