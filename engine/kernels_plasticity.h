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

#define EVERGRAD_FOR_EACH_PLASTICITY_KERNEL(X) \
  X(weight_penalty, WeightPenalty)             \
  X(weight_perturb, WeightPerturb)             \
  X(weight_project, WeightProject)

}  // namespace eg
