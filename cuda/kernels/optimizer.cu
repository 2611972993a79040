// cuda/kernels/optimizer.cu - global norm, SGD, Adam and AdamW over the flat arena, moving average (methods.md A.1,
// A.2).
//
// Math     as in engine/reference/optimizer.cpp; learning rates, counts and the clip factor are read from the step
//          record
// Traffic  AdamW: gradient, weight, m, v in, weight, m, v and the bf16 copy out: 30 bytes a parameter with fp32
//          gradients
// Work     SGD 6 to 11 FLOP a parameter, AdamW 18 with a root and a division, the norm 2 in double, the average 3: bound
//          by memory
// Mapping  one block per chunk of a segment, packs of 8 per thread; 106 segments in one launch, which is
//          all of a ViT with 12 blocks
// Order    the norm's partial sums are one per chunk, in double, added in chunk order: the same on every card
// Limits   segments may begin and end anywhere; packs that are not whole go element by element
#include "cuda/kernels/optimizer.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

__global__ void __launch_bounds__(kUpdateThreads) norm_device(const NormParams p) {
  const Chunk c = chunk_of(p.table, kNormChunk);
  double sum = 0.0;
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float g[kPack];
    load_some(p.grad, i, count, wide, g);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) sum += double(g[k]) * double(g[k]);
  });
  sum = block_sum<kUpdateThreads>(sum);
  if (threadIdx.x == 0) p.partials[p.first_partial + blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kUpdateThreads) finish_norm_device(const FinishNormParams p) {
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < p.count; i += kUpdateThreads) sum += p.partials[i];
  sum = block_sum<kUpdateThreads>(sum);
  if (threadIdx.x != 0) return;
  StepRecord& step = *p.step;
  const bool finite = sum - sum == 0.0;
  const double norm = sqrt(sum);
  step.grad_norm_sq = sum;
  step.finite = finite ? 1 : 0;
  step.clip_scale = finite && step.max_norm > 0.0 && norm > step.max_norm ? step.max_norm / norm : 1.0;
}

__global__ void __launch_bounds__(32) step_finish_device(const StepFinishParams p) {
  if (threadIdx.x != 0) return;
  StepRecord& step = *p.step;
  if (!step.finite) {
    ++step.skipped;
    ++step.skipped_in_a_row;
    return;
  }
  step.skipped_in_a_row = 0;
  for (int i = 0; i < StepRecord::kSlots; ++i)
    if (p.slots >> i & 1u) ++step.slot[i].t;
}

__global__ void __launch_bounds__(kUpdateThreads) sgd_device(const SgdParams p) {
  if (!p.step->finite) return;
  const Chunk c = chunk_of(p.table, kUpdateChunk);
  const Segment& s = p.table.segment[c.segment];
  const StepSlot slot = p.step->slot[s.slot];
  const double rate = slot.lr * double(s.lr_scale);
  const float lr = float(rate), clip = p.clipped ? 1.0f : float(p.step->clip_scale), decay = s.weight_decay;
  const float shrink = p.decoupled ? float(1.0 - rate * double(decay)) : 1.0f, coupled = p.decoupled ? 0.0f : decay;
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float w[kPack], g[kPack], b[kPack] = {};
    load_some(p.weight, i, count, wide, w), load_some(p.grad, i, count, wide, g);
    if (p.momentum.data) load_some(p.momentum, i, count, wide, b);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      const float d = clip * g[k] + coupled * w[k];
      b[k] = slot.t == 0 ? d : p.mu * b[k] + p.keep * d;
      const float u = !p.momentum.data ? d : p.nesterov ? d + p.mu * b[k] : b[k];
      w[k] = shrink * w[k] - lr * u;
    }
    store_some(p.weight, i, count, wide, w);
    if (p.momentum.data) store_some(p.momentum, i, count, wide, b);
    if (p.work.data) store_some(p.work, i, count, wide, w);
  });
}

/// What bias correction makes of t updates: 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t).
struct Correction {
  float first, second;
};
__device__ __forceinline__ Correction correction_of(const AdamParams& p, std::int64_t t) {
  return {float(1.0 / (1.0 - power(p.beta1, t))), float(1.0 / sqrt(1.0 - power(p.beta2, t)))};
}

__global__ void __launch_bounds__(kUpdateThreads) adam_device(const AdamParams p) {
  if (!p.step->finite) return;
  const Chunk c = chunk_of(p.table, kUpdateChunk);
  const Segment& s = p.table.segment[c.segment];
  const StepSlot slot = p.step->slot[s.slot];
  Correction& shared = static_shared<Correction>();
  if (threadIdx.x == 0) shared = correction_of(p, slot.t + 1);
  __syncthreads();
  const Correction usual = shared;
  const double rate = slot.lr * double(s.lr_scale);
  const float lr = float(rate), clip = float(p.step->clip_scale), decay = s.weight_decay;
  const float shrink = p.decoupled ? float(1.0 - rate * double(decay)) : 1.0f, coupled = p.decoupled ? 0.0f : decay;
  const float beta1 = float(p.beta1), beta2 = float(p.beta2), rest1 = float(1.0 - p.beta1),
              rest2 = float(1.0 - p.beta2);
  const bool own_steps = p.row_steps || p.column_steps;
  for_each_pack_of(c, p.wide, [&](std::int64_t i, int count, bool wide) {
    float w[kPack], g[kPack], m[kPack], v[kPack];
    load_some(p.weight, i, count, wide, w), load_some(p.grad, i, count, wide, g);
    load_some(p.m, i, count, wide, m), load_some(p.v, i, count, wide, v);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) {
      if (k >= count) continue;
      Correction fix = usual;
      if (own_steps) {  // units that were replaced count their own updates
        const std::int64_t e = i + k - s.begin;
        std::int64_t t = slot.t;
        if (p.row_steps) t = min_of(t, std::int64_t(p.row_steps[e / p.columns]));
        if (p.column_steps) t = min_of(t, std::int64_t(p.column_steps[e % p.columns]));
        fix = correction_of(p, t + 1);
      }
      const float d = clip * g[k] + coupled * w[k];
      m[k] = beta1 * m[k] + rest1 * d;
      v[k] = beta2 * v[k] + rest2 * d * d;
      w[k] = shrink * w[k] - lr * (m[k] * fix.first / (sqrtf(v[k]) * fix.second + p.eps));
    }
    store_some(p.weight, i, count, wide, w);
    store_some(p.m, i, count, wide, m), store_some(p.v, i, count, wide, v);
    if (p.work.data) store_some(p.work, i, count, wide, w);
  });
}

__global__ void __launch_bounds__(256) ema_device(const EmaParams p) {
  if (p.step && !p.step->finite) return;
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    float a[kPack], w[kPack];
    load_some(p.average, i, count, wide, a), load_some(p.weight, i, count, wide, w);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) a[k] = p.decay * a[k] + p.rest * w[k];
    store_some(p.average, i, count, wide, a);
  });
}

}  // namespace

void (*norm_kernel())(NormParams) { return &norm_device; }
void (*finish_norm_kernel())(FinishNormParams) { return &finish_norm_device; }
void (*sgd_kernel())(SgdParams) { return &sgd_device; }
void (*adam_kernel())(AdamParams) { return &adam_device; }
void (*ema_kernel())(EmaParams) { return &ema_device; }
void (*step_finish_kernel())(StepFinishParams) { return &step_finish_device; }

}  // namespace eg::EVERGRAD_BACKEND
