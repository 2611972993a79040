// engine/reference/arrow.cpp - ARROW (arXiv:2603.07787; methods.md A.3): what a step reads and writes of the P
// parameters. The W x W algebra between the passes stands in engine/arrow_solve.cpp.
//
//   observe   ring[next] = g,  K[next][j] = <ring[next], ring[j]>
//   solve     c = (alpha I + (beta/D) K)^-1 e_newest
//   update    u = sum_j c_j ring[j],  w = (1 - lr decay) w - lr u
#include "engine/arrow_solve.h"

#include <cmath>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {
namespace {

double product(const TensorView& a, std::int64_t a0, const TensorView& b, std::int64_t b0, std::int64_t n) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < n; ++i) sum += get(a, a0 + i) * get(b, b0 + i);
  return sum;
}

/// AdamW's direction m_hat / (sqrt(v_hat) + eps) of element i.
template <class Args>
double adam_direction(const Args& a, const ArrowTarget& target, std::int64_t i) {
  const double t = double(a.step->slot[a.slot].t + 1);
  const double m_hat = get(target.m, i) / (1.0 - std::pow(a.beta1, t));
  const double v_hat = get(target.v, i) / (1.0 - std::pow(a.beta2, t));
  return m_hat / (std::sqrt(v_hat) + a.eps);
}

/// The factor that gives u the norm of another step: ARROW then chooses the direction alone.
double graft_factor(const ArrowUpdate& a) {
  const ArrowState& s = *a.state;
  if (a.graft == ArrowGraft::none || !(s.norm_sq_update > 0.0)) return 1.0;
  return std::sqrt((a.graft == ArrowGraft::sgd ? s.norm_sq_gradient : s.norm_sq_base) / s.norm_sq_update);
}

/// AdamW's direction where moments exist, else the clipped gradient; as long as ARROW's step in a norm control.
double base_direction(const ArrowUpdate& a, const ArrowTarget& target, std::int64_t i) {
  const double u = target.m ? adam_direction(a, target, i) : a.step->clip_scale * get(target.grad, i);
  const double square = target.m ? a.state->norm_sq_base : a.state->norm_sq_gradient;
  if (a.state->use_base || !(square > 0.0)) return u;
  return u * std::sqrt(a.state->norm_sq_update / square);
}

/// v of the general form after this step: mu v + clip g, or the clipped gradient alone.
double advance_vector(const ArrowUpdate& a, const ArrowTarget& target, std::int64_t i) {
  const double g = a.step->clip_scale * get(target.grad, i);
  if (!a.precondition_momentum || !target.momentum) return g;
  put(target.momentum, i, a.mu * get(target.momentum, i) + g);
  return get(target.momentum, i);
}

double preconditioned(const ArrowUpdate& a, const ArrowTarget& target, double vector, std::int64_t i) {
  double u = a.state->vector_coefficient == 0.0 ? 0.0 : a.state->vector_coefficient * vector;
  const std::int64_t n = target.weight.size();
  for (int j = 0; j <= a.window; ++j)
    if (a.state->coefficient[j] != 0.0) u += a.state->coefficient[j] * get(target.ring, j * n + i);
  return u;
}

}  // namespace

void arrow_observe(const ArrowObserve& a, Stream) {
  const std::int64_t n = a.grad.size(), slots = a.ring.dim(0), s = a.state->next;
  const auto column = [&](std::int64_t slot) { return slot * a.ring.dim(1) + a.begin; };
  for (std::int64_t i = 0; i < n; ++i) put(a.ring, column(s) + i, get(a.grad, i));
  if (!a.gram) return;
  for (std::int64_t back = 0; back <= a.state->filled && back < slots; ++back) {
    const std::int64_t j = (s - back + slots) % slots;
    const double k = product(a.ring, column(s), a.ring, column(j), n);
    put(a.gram, s * slots + j, k);
    put(a.gram, j * slots + s, k);
    if (a.dots) put(a.dots, j, product(a.grad, 0, a.ring, column(j), n));
  }
  if (!a.dots) return;
  put(a.dots, slots, product(a.grad, 0, a.grad, 0, n));
  put(a.dots, slots + 1, a.vector ? product(a.grad, 0, a.vector, 0, n) : 0.0);
  put(a.dots, slots + 2, a.vector ? product(a.ring, column(s), a.vector, 0, n) : 0.0);
}

void arrow_solve(const ArrowSolve& a, Stream) { arrow_solve_on_host(a); }

void arrow_base(const ArrowBase& a, Stream) {
  if (!a.step->finite) return;
  double sum = 0.0;
  for (const ArrowTarget& target : a.targets)
    for (std::int64_t i = 0; i < target.weight.size(); ++i) {
      const double g = a.step->clip_scale * get(target.grad, i);
      put(target.m, i, a.beta1 * get(target.m, i) + (1.0 - a.beta1) * g);
      put(target.v, i, a.beta2 * get(target.v, i) + (1.0 - a.beta2) * g * g);
      const double d = adam_direction(a, target, i);
      sum += d * d;
    }
  a.state->norm_sq_base = sum;
}

void arrow_update(const ArrowUpdate& a, Stream) {
  if (!a.step->finite) return;
  const ArrowState& state = *a.state;
  const double base_lr = a.step->slot[a.base_slot].lr, lr = state.use_base ? base_lr : a.step->slot[a.slot].lr;
  const double factor = graft_factor(a);
  for (const ArrowTarget& target : a.targets)
    for (std::int64_t i = 0; i < target.weight.size(); ++i) {
      double u = 0.0;
      const double vector = state.committed ? advance_vector(a, target, i) : 0.0;
      if (state.use_base || (a.norm_control && state.committed)) {
        u = base_direction(a, target, i);
      } else if (state.committed) {
        u = factor * preconditioned(a, target, vector, i);
        if (target.momentum && !a.precondition_momentum) {
          u += a.mu * get(target.momentum, i);
          put(target.momentum, i, u);
        }
      }
      put(target.weight, i, (1.0 - base_lr * double(target.weight_decay)) * get(target.weight, i) - lr * u);
      if (target.work) put(target.work, i, get(target.weight, i));
    }
}

}  // namespace eg::reference
