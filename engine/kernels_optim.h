// engine/kernels_optim.h - the part of the kernel table that updates parameters: fused multi-tensor optimizer passes
// over the flat arenas, the global norm with its finite check, and ARROW (arXiv:2603.07787).
//
// Nothing that changes from step to step is a host value: learning rates, update counts, the clip factor and ring slots
// live in a StepRecord on the device, so that one recorded step can be replayed.
#pragma once
#include <cstdint>
#include <span>

#include "engine/kernels_arrow.h"
#include "engine/kernels_plasticity.h"
#include "engine/records.h"
#include "engine/tensor.h"

namespace eg {

/// Fixed-order double sum of squares over the listed segments of the gradient arena -> grad_norm_sq, finite, clip_scale.
/// Without `grad` the grad_norm_sq that stands in the record (ranks have added theirs up) -> finite, clip_scale.
struct GlobalNorm {
  TensorView grad;
  std::span<const Segment> segments;
  StepRecord* step = nullptr;
};
/// After all updates: t += 1 in every slot of `slots` bits when finite, else skipped += 1.
struct StepFinish {
  StepRecord* step = nullptr;
  std::uint32_t slots = 1;
};

/// PyTorch's SGD (methods.md A.1): d = clip*g (+ decay*w when coupled); b = mu*b + (1-dampening)*d (first step: b = d);
/// u = d + mu*b (Nesterov) or b; w -= lr*u; decoupled decay: w *= 1 - lr*decay first. work (bf16 copy) optional.
/// With `clipped`, grad is a direction that the clip factor is in already (Muon's): d = g.
struct SgdUpdate {
  TensorView weight, grad, momentum, work;
  std::span<const Segment> segments;
  const StepRecord* step = nullptr;
  double mu = 0.0, dampening = 0.0;
  bool nesterov = false, decoupled = false, clipped = false;
};

/// Adam and AdamW (methods.md A.2). t + 1 of the segment's slot is the bias-correction step. Where a method
/// replaced units, row_steps and column_steps hold the updates since then, and an element's step is one more than the
/// smaller count of its row and column (methods.md A.2, "stale-step trap"); the caller advances them.
struct AdamUpdate {
  TensorView weight, grad, m, v, work;
  std::span<const Segment> segments;
  const StepRecord* step = nullptr;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  bool decoupled = true;
  TensorView row_steps, column_steps;  // i32; optional, only with a single segment that is one matrix [rows, columns]
  std::int64_t rows = 0, columns = 0;
};

/// UPGD (Elsayed & Mahmood 2024, arXiv:2404.00781; methods.md A.7): with d = clip*g, utility = beta*utility - (1-beta)*d*w; the gate
/// open = 1 - sigmoid(corrected utility / M), M the largest utility of all segments, uncorrected and at least 1e-12; then
/// w = (1 - lr*decay) w - lr (d + noise n) open, or, not protecting, - lr (d + noise n open). n is standard normal: a
/// function of the step's seed and number, `stream` and the weight's place in the arena.
struct UpgdUpdate {
  TensorView weight, grad, utility, work;  // whole arenas; grad f32 (f64) or x; work (bf16 copy) optional
  std::span<const Segment> segments;       // none covers padding, which noise would fill
  const StepRecord* step = nullptr;
  double beta = 0.999, noise = 1e-3;
  bool protects = true;
  std::uint32_t stream = 0;
};

/// average = decay*average + (1-decay)*weight over the whole arena.
struct EmaUpdate {
  TensorView average, weight;
  double decay = 0.999;
  const StepRecord* step = nullptr;
};

#define EVERGRAD_FOR_EACH_OPTIM_KERNEL(X) \
  X(global_norm, GlobalNorm)              \
  X(step_finish, StepFinish)              \
  X(sgd_update, SgdUpdate)                \
  X(adam_update, AdamUpdate)              \
  X(upgd_update, UpgdUpdate)              \
  X(ema_update, EmaUpdate) EVERGRAD_FOR_EACH_ARROW_KERNEL(X) EVERGRAD_FOR_EACH_PLASTICITY_KERNEL(X)

}  // namespace eg
