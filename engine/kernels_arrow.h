// engine/kernels_arrow.h - ARROW's three passes (arXiv:2603.07787, methods.md A.3): observe, solve, combine-and-update.
//
// A ring of W + 1 slots holds raw (unclipped, reduced) gradients; the Gram row of the newest slot is computed in the
// same pass that writes it; the slot is committed only after the global finite check, so a non-finite step changes
// nothing.
#pragma once
#include <cstdint>
#include <span>

#include "engine/records.h"
#include "engine/tensor.h"

namespace eg {

/// ring[next][begin..begin+n) = grad; gram[next][j] = gram[j][next] = <grad, ring[j]> over these n elements, for all committed
/// j and next itself, summed in double in an order that n alone fixes: the same elements give the same bits wherever they lie.
struct ArrowObserve {
  TensorView grad;         // [n] f32 or bf16 (f64): the slice of the gradient arena; may be empty, whose sums are 0
  TensorView ring;         // [W+1, P], the gradient's dtype, or bf16
  std::int64_t begin = 0;  // of the P elements of a column
  TensorView gram;         // f64 [W+1, W+1]: this tensor's own Gram matrix; absent: the ring is all that is written
  const ArrowState* state = nullptr;
  // The general form (methods.md A.3.2, "general right-hand side") preconditions a vector v that is not a column of the
  // window: the exact gradient beside a rounded ring, or the momentum. It needs, beside the Gram row, what only a pass
  // over the parameters can give:
  TensorView vector;  // [n]: the momentum before this step; absent when v is the gradient itself
  // f64 [W+4]: <grad, ring[j]> of the slots that gram gets; then <grad, grad>, <grad, vector>, <ring[next], vector>
  TensorView dots;
};

/// What a solve needs of one group.
struct ArrowSystem {
  TensorView grams;             // f64 [T, W+1, W+1]: the Gram matrices of the group's tensors
  TensorView dots;              // f64 [T, W+4], only in the general form
  std::int64_t parameters = 0;  // P of the group, for relative damping over all dimensions
  ArrowState* state = nullptr;
};
/// For each group: commits the observed slot and solves (alpha I + beta/D K) c = e_newest in double (Cholesky; on failure
/// alpha x10 up to 5 times, then u = g / alpha). K = sum over the group's tensors of gram, scaled by the clip
/// factors. A zero gradient carries no direction: nothing is committed and the step is 0.
struct ArrowSolve {
  std::span<const ArrowSystem> systems;
  double vector_mu = 0.0;  // general form: v = vector_mu v + clip g
  ArrowOptions options;
  const StepRecord* step = nullptr;
};

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
