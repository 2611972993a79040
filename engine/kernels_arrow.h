// engine/kernels_arrow.h - ARROW's three passes (arXiv:2603.07787, methods.md A.3): observe, solve, combine-and-update.
//
// A ring of W + 1 slots holds raw (unclipped, reduced) gradients; the Gram row of the newest slot is computed in the
// same pass that writes it; the slot is committed only after the global finite check, so a non-finite step changes
// nothing.
#pragma once
#include <cstdint>
#include <span>

#include "engine/tensor.h"

namespace eg {

struct StepRecord;

inline constexpr int kArrowMaxWindow = 64;

enum class ArrowDamping : std::uint8_t { absolute, relative, dimensionless };
enum class ArrowWarmup : std::uint8_t { none, base, beta_ramp };
enum class ArrowSchedule : std::uint8_t { constant, linear, exponential };

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

/// ring[next][0..P) = grad; gram[next][j] = gram[j][next] = <grad, ring[j]> for all committed j and next itself, summed
/// in double in a fixed order.
struct ArrowObserve {
  TensorView grad;  // [P] f32 or bf16 (f64): the slice of the gradient arena
  TensorView ring;  // [W+1, P], the gradient's dtype, or bf16
  TensorView gram;  // f64 [W+1, W+1]: this tensor's own Gram matrix
  const ArrowState* state = nullptr;
  // The general form (methods.md A.3.2, "general right-hand side") preconditions a vector v that is not a column of the
  // window: the exact gradient beside a rounded ring, or the momentum. It needs, beside the Gram row, what only a pass
  // over the parameters can give:
  TensorView vector;  // [P]: the momentum before this step; absent when v is the gradient itself
  // f64 [W+4]: <grad, ring[j]> of the slots that gram gets; then <grad, grad>, <grad, vector>, <ring[next], vector>
  TensorView dots;
};

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

/// Commits the observed slot of one group and solves (alpha I + beta/D K) c = e_newest in double (Cholesky; on failure
/// alpha x10 up to 5 times, then u = g / alpha). K = sum over the group's tensors of gram, scaled by the clip
/// factors. A zero gradient carries no direction: nothing is committed and the step is 0.
struct ArrowSolve {
  TensorView grams;             // f64 [T, W+1, W+1]: the Gram matrices of the group's tensors
  TensorView dots;              // f64 [T, W+4], only in the general form
  double vector_mu = 0.0;       // general form: v = vector_mu v + clip g
  std::int64_t parameters = 0;  // P of the group, for relative damping over all dimensions
  ArrowOptions options;
  const StepRecord* step = nullptr;
  ArrowState* state = nullptr;
};

enum class ArrowGraft : std::uint8_t { none, sgd, adamw };

/// One contiguous run of parameters that belongs to a group: a matrix, or the q, k or v third of a fused one.
struct ArrowTarget {
  TensorView weight, grad, work;  // [P]; work (the bf16 copy) optional
  TensorView ring;                // [W+1, P]
  TensorView m, v;                // AdamW moments [P], kept when warm-up or grafting needs them, else absent
  TensorView momentum;            // [P], optional: heavy ball on the preconditioned steps, or v of the general form
  float weight_decay = 0.0f;      // of the type that Segment has, so that ARROW and its base shrink a weight alike
};

/// Advances the base optimizer's moments of the group's targets and sums |AdamW direction|^2 into state->norm_sq_base,
/// in a fixed order. Bias correction uses t + 1 of slot `slot`. Runs before arrow_update, after arrow_solve.
struct ArrowBase {
  std::span<const ArrowTarget> targets;
  const StepRecord* step = nullptr;
  ArrowState* state = nullptr;
  int slot = 0;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

/// u = sum_j coefficient[j] ring[j] (+ vector_coefficient v), grafted; b = mu b + u; w = (1 - base_lr decay) w - lr b.
/// Decay has the base's rate: ARROW's own, 100 times larger when nothing is grafted, would shrink the weights by half a
/// percent a step. During warm-up (use_base) the base direction is taken instead: AdamW's where moments exist, else the
/// clipped gradient. A non-finite step changes nothing.
struct ArrowUpdate {
  std::span<const ArrowTarget> targets;
  const StepRecord* step = nullptr;
  const ArrowState* state = nullptr;
  int slot = 0,
      base_slot = 0;  // rates of ARROW's step and of the base step during warm-up; bias correction uses `slot`
  int window = 8;
  ArrowGraft graft = ArrowGraft::adamw;
  double mu = 0.0;
  bool precondition_momentum = false;  // target.momentum is v of the general form instead of a heavy ball on the steps
  bool norm_control = false;           // after warm-up: the base direction with the length of ARROW's step
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

#define EVERGRAD_FOR_EACH_ARROW_KERNEL(X) \
  X(arrow_observe, ArrowObserve)          \
  X(arrow_solve, ArrowSolve) X(arrow_base, ArrowBase) X(arrow_update, ArrowUpdate)

}  // namespace eg
