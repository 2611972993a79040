// engine/records.h - the plain data that kernels read and write beside tensors: the record of one training step, the
// segments of an arena, the state of ARROW. No pointer, no member function: host and device see the same bytes.
#pragma once
#include <cstdint>

namespace eg {

/// One learning rate and one update count on the device. Every optimizer group (base, ARROW, head, ...) owns a slot.
struct StepSlot {
  double lr = 0.0;     // written by the host before the step
  std::int64_t t = 0;  // updates applied so far; advanced by step_finish when the step was finite
};

/// The device-side record of one training step. Plain data: copied to the device whole.
struct StepRecord {
  static constexpr int kSlots = 16;
  std::uint64_t seed = 0;         // Philox key
  std::int64_t step = 0;          // training step: Philox counter word c2
  std::int64_t first_sample = 0;  // global number of this micro-batch's first sample
  StepSlot slot[kSlots];
  double max_norm = 0.0;      // global-norm clip threshold; 0 = no clipping
  double grad_norm_sq = 0.0;  // written by global_norm
  double clip_scale = 1.0;    // written by global_norm: min(1, max_norm / norm)
  std::int64_t finite = 1;    // written by global_norm: 0 when the gradient has a NaN or Inf
  std::int64_t skipped = 0;   // steps not applied because finite was 0
  std::int64_t skipped_in_a_row = 0;
};

/// A range of the flat arena with its own hyper-parameters. lr = slot[slot].lr * lr_scale.
struct Segment {
  std::int64_t begin = 0, end = 0;
  std::int32_t slot = 0;
  float lr_scale = 1.0f;
  float weight_decay = 0.0f;
};

/// A range of the flat arena and what a plasticity method does to its weights; each kernel says which fields it reads.
struct WeightSegment {
  std::int64_t begin = 0, end = 0;
  float keep = 1.0f, pull = 0.0f, shift = 0.0f, noise = 0.0f;
  float bound = 3.4028234e38f;
};

/// UPGD: a largest utility below this, which happens where all are negative, would turn the sign of the gate.
inline constexpr double kUpgdLeastMaximum = 1e-12;

inline constexpr int kArrowMaxWindow = 64;

enum class ArrowDamping : std::uint8_t { absolute, relative, dimensionless };
enum class ArrowWarmup : std::uint8_t { none, base, beta_ramp };
enum class ArrowSchedule : std::uint8_t { constant, linear, exponential };

enum class ArrowGraft : std::uint8_t { none, sgd, adamw };

/// The settings of one ARROW group; docs/arrow.md explains each.
struct ArrowOptions {
  int window = 8;
  // absolute: alpha I + beta C; dimensionless: alpha I + kappa C / tr(C); relative: alpha = rho beta tr(C) / r
  double alpha = 1.0, beta = 1.0, kappa = 10.0, rho = 0.1;
  ArrowDamping damping = ArrowDamping::dimensionless;
  bool divide_by_filled = false;   // D = n instead of D = W
  bool relative_over_all = false;  // r = P instead of r = n
  ArrowWarmup warmup = ArrowWarmup::base;
  std::int64_t warmup_steps = 8;
  // Where alpha is given: from alpha to alpha_final over alpha_steps committed steps.
  ArrowSchedule alpha_schedule = ArrowSchedule::constant;
  double alpha_final = 1.0;
  std::int64_t alpha_steps = 8;
};

/// Device-side state of one ARROW group.
struct ArrowState {
  std::int64_t next = 0;    // slot that the next observation writes
  std::int64_t filled = 0;  // committed columns, at most W
  std::int64_t t = 0;       // committed steps since the last clear
  std::int64_t skipped = 0;
  double clip[kArrowMaxWindow + 1] = {};         // clip factor of each slot
  double coefficient[kArrowMaxWindow + 1] = {};  // c per slot, clip folded in: u = sum_j coefficient[j] * ring[j]
  double norm_sq_base = 0.0;                     // |AdamW direction|^2 of the group, for grafting; summed by arrow_base
  double norm_sq_update = 0.0;                   // |u|^2 from the Gram matrix
  double norm_sq_gradient = 0.0;                 // |g|^2 of the newest column (clipped)
  double descent = 0.0;                          // g.u, predicted first-order decrease / lr
  double overlap[kArrowMaxWindow + 1] = {};      // g_j.u per slot: what the step does to recent losses / lr
  double trace = 0.0, alpha = 0.0, beta = 0.0;   // tr(K)/D and the damping that was used
  std::int64_t use_base = 0;                     // 1: warm-up, take the base direction
  std::int64_t committed = 0;                    // 1: this step's gradient entered the window; 0: the step is 0
  double largest_diagonal = 0.0;                 // for alpha_min of relative damping
  // General form only (see ArrowObserve::dots): u = vector_coefficient * v + sum_j coefficient[j] * ring[j].
  double vector_coefficient = 0.0;
  double norm_sq_vector = 0.0;                  // |v|^2
  double projection[kArrowMaxWindow + 1] = {};  // <ring[j], v> of every committed slot
};

}  // namespace eg
