// engine/kernels_plasticity.h - the part of the kernel table that plasticity methods use: passes over the weights that
// pull, shrink, perturb, clip and project them (methods.md B).
//
// All of them leave everything as it is when the step's gradient was not finite, and refresh the bf16 copy.
#pragma once
#include <cstdint>
#include <span>

#include "engine/records.h"
#include "engine/tensor.h"

namespace eg {

/// grad += pull (weight - anchor): the gradient of pull/2 |weight - anchor|^2 (L2 Init, Kumar et al., arXiv:2308.11958);
/// without an anchor, of pull/2 |weight|^2. Runs before the norm is measured, so it reads no step record.
struct WeightPenalty {
  TensorView grad, weight, anchor;  // whole arenas; grad f32 (f64) or x
  std::span<const WeightSegment> segments;
};

/// weight = clamp(keep weight + pull anchor + shift + noise n, -bound, bound) with standard normal n: shrink and perturb
/// (Ash & Adams 2020, arXiv:1910.08475) in its variants, and weight clipping. n is a pure function of the step's seed
/// and number, `stream` and the weight's place in the arena.
struct WeightPerturb {
  TensorView weight, anchor, work;  // anchor and work are optional
  std::span<const WeightSegment> segments;
  const StepRecord* step = nullptr;
  std::uint32_t stream = 0;
  int noise_slot = -1;           // where not negative, noise is multiplied by that slot's learning rate
  bool even_if_skipped = false;  // between tasks, where the last step's gradient does not matter
};

/// weight *= bound / |weight| per segment, the norm over the segment (Lyle et al. 2024, arXiv:2407.01800). A segment of
/// zeros stays. Only in steps whose number is a multiple of `every`.
struct WeightProject {
  TensorView weight, work;
  std::span<const WeightSegment> segments;
  const StepRecord* step = nullptr;
  std::int64_t every = 1;
};

/// The bookkeeping of hidden units after an update (continual backpropagation, Dohare et al. 2024, arXiv:2306.13812):
/// utility = decay utility + (1 - decay) sum_abs / rows * mean over o of |weight_out[o, unit]|, and steps += 1; with
/// `mean`, mean = decay mean + (1 - decay) sum / row_count as well. The sums of the next step begin at zero, except in
/// steps that are a multiple of `keep_every`, where the host reads them first; row_count is the caller's to clear.
struct UnitUtility {
  TensorView sum_abs;               // f64 [F]: sum of |gelu| over the step's rows
  TensorView weight_out, utility;   // stat [O,F], stat [F]; optional together
  TensorView steps;                 // i32 [F]: updates since the unit was new
  TensorView sum, row_count, mean;  // f64 [F], f64 [1], stat [F]; optional together
  double rows = 1.0, decay = 0.99;
  std::int64_t keep_every = 0;
  const StepRecord* step = nullptr;
};

/// Writes the entries of some hidden units in an array that is laid out as the arena: the rows of the first matrix get
/// `rows` (or zeros), their biases and the columns of the second matrix zeros.
struct UnitReset {
  TensorView array;
  std::int64_t fc1_weight = 0, fc1_bias = 0, fc2_weight = 0;  // first element of [F,I], [F], [O,F]
  std::int64_t inputs = 0, hidden = 0, outputs = 0;           // I, F, O
  TensorView units;                                           // i32 [n]
  TensorView rows;                                            // stat [n,I], optional
};

/// TRAC before the base's update: h = sum of clip grad way, then one step of the tuners (engine/trac_tune.h). The way is
/// `way`, or, without it, (weight - anchor) / (scale + eps). A non-finite h marks the step as not finite.
struct TracMeasure {
  TensorView grad, weight, anchor, way;  // whole arenas
  TensorView state;                      // f64 [kTracState]
  StepRecord* step = nullptr;
};
/// TRAC after the base's update, which took the weights from `before` to `weight`: way += weight - before (without
/// `way`, it is made from `before` and the scale that held then), weight = anchor + max(scale, 0) way.
struct TracApply {
  TensorView weight, work, before, anchor, way, state;
  const StepRecord* step = nullptr;
};

/// One step of power iteration on a matrix W, and the gradient of a penalty on its largest singular value (Lewandowski et
/// al. 2025, arXiv:2406.06811; methods.md B.6): v = W^T u / |W^T u|, next = W v / |W v|, sigma = |W v|, and
/// grad += 2 strength k sigma^(k-1) (sigma^k - target) next v^T: the slope of strength (sigma^k - target)^2.
/// A vector is a matrix of one row, whose sigma is its length. W = 0, and u that W^T takes to 0, leave grad alone and give
/// next = u. Runs before the norm is measured, so it reads no step record; `u` is not written, so that a step which turns
/// out not to be finite can be forgotten.
struct SpectralPenalty {
  TensorView grad, weight;  // [R,C]; grad f32 (f64) or x
  TensorView u, next, v;    // stat [R], stat [R], stat [C]
  TensorView sigma;         // stat [1]
  double strength = 0.0, target = 1.0;
  int k = 1;  // at least 1
};

/// Weights one step uphill (sharpness-aware minimisation, Foret et al. 2021, arXiv:2010.01412): per segment
/// to = weight + pull grad / (n + 1e-12), n the norm of the gradient over all segments whose pull is not zero; adaptive
/// (ASAM, Kwon et al. 2021, arXiv:2102.11600): to = weight + pull weight^2 grad / (n + 1e-12), n that of |weight| grad.
/// Where n is not finite all of those segments become NaN, so that the gradient there is not finite either and the step
/// is skipped; it runs before that gradient's norm is measured, so it reads no step record.
struct WeightAscent {
  TensorView weight, grad, to;  // whole arenas; to x, the type of what the forward pass reads
  std::span<const WeightSegment> segments;
  bool adaptive = false;
};

#define EVERGRAD_FOR_EACH_PLASTICITY_KERNEL(X) \
  X(weight_penalty, WeightPenalty)             \
  X(weight_perturb, WeightPerturb)             \
  X(weight_project, WeightProject)             \
  X(weight_ascent, WeightAscent)               \
  X(unit_utility, UnitUtility)                 \
  X(unit_reset, UnitReset)                     \
  X(trac_measure, TracMeasure)                 \
  X(trac_apply, TracApply)                     \
  X(spectral_penalty, SpectralPenalty)

}  // namespace eg
