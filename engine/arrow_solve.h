// engine/arrow_solve.h - the W x W part of ARROW (methods.md A.3.2): a handful of doubles, the same code on every
// device.
//
// With C = (1/D) G G^T the step (alpha I + beta C)^-1 g equals G c with c = (alpha I + (beta/D) K)^-1 e_newest and
// K = G^T G, because g is itself the newest column of G (push-through identity). So the P-dimensional system is a W x W
// one. Device compilers read this file too: plain arrays, no std::.
#pragma once
#include <math.h>

#include <cstdint>

#include "engine/dtype.h"
#include "engine/records.h"

namespace eg {

/// ArrowSolve (kernels_arrow.h) as plain pointers.
struct ArrowSolveInput {
  const double* grams;  // [tensors, W+1, W+1]
  const double* dots;   // [tensors, W+4], or null: the closed form
  std::int64_t tensors, parameters;
  double vector_mu;
  ArrowOptions options;
  const StepRecord* step;
  ArrowState* state;
};

/// Working memory of a solve: undefined before, garbage after.
struct ArrowSolveMemory {
  double gram[kArrowMaxWindow * kArrowMaxWindow];  // K with clip factors applied, n x n, newest column first
  double matrix[kArrowMaxWindow * kArrowMaxWindow];
  double rhs[kArrowMaxWindow], x[kArrowMaxWindow], c[kArrowMaxWindow];
  int slot[kArrowMaxWindow];
  int n;
  double trace;
};

namespace arrow_detail {

EVERGRAD_HD inline double larger(double a, double b) { return a < b ? b : a; }

/// Solves matrix x = x for a symmetric positive definite matrix (overwritten) by Cholesky; false when it is not.
EVERGRAD_HD inline bool cholesky_solve(ArrowSolveMemory& w) {
  const int n = w.n;
  double* const a = w.matrix;
  double* const x = w.x;
  for (int j = 0; j < n; ++j) {
    double d = a[j * n + j];
    for (int k = 0; k < j; ++k) d -= a[j * n + k] * a[j * n + k];
    if (!(d > 0.0) || d - d != 0.0) return false;
    a[j * n + j] = sqrt(d);
    for (int i = j + 1; i < n; ++i) {
      double s = a[i * n + j];
      for (int k = 0; k < j; ++k) s -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = s / a[j * n + j];
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < i; ++k) x[i] -= a[i * n + k] * x[k];
    x[i] /= a[i * n + i];
  }
  for (int i = n - 1; i >= 0; --i) {
    for (int k = i + 1; k < n; ++k) x[i] -= a[k * n + i] * x[k];
    x[i] /= a[i * n + i];
  }
  return true;
}

/// Sum over the group's tensors of one entry of a [tensors, entries] array.
EVERGRAD_HD inline double total(const double* per_tensor, std::int64_t tensors, std::int64_t entries,
                                std::int64_t entry) {
  double sum = 0.0;
  for (std::int64_t t = 0; t < tensors; ++t) sum += per_tensor[t * entries + entry];
  return sum;
}

EVERGRAD_HD inline void read_window(const ArrowSolveInput& a, int newest, ArrowSolveMemory& w) {
  const ArrowState& s = *a.state;
  const int slots = a.options.window + 1;
  w.n = int(s.filled);
  for (int i = 0; i < w.n; ++i) w.slot[i] = (newest - i + slots) % slots;
  for (int i = 0; i < w.n; ++i)
    for (int j = 0; j < w.n; ++j) {
      const int p = w.slot[i], q = w.slot[j];
      w.gram[i * w.n + j] = total(a.grams, a.tensors, slots * slots, p * slots + q) * s.clip[p] * s.clip[q];
    }
  w.trace = 0.0;
  for (int i = 0; i < w.n; ++i) w.trace += w.gram[i * w.n + i];
}

/// The given alpha after t committed steps.
EVERGRAD_HD inline double scheduled_alpha(const ArrowOptions& o, std::int64_t t) {
  const double share = o.alpha_steps > 0 ? double(t) / double(o.alpha_steps) : 1.0, done = share < 1.0 ? share : 1.0;
  if (o.alpha_schedule == ArrowSchedule::linear) return o.alpha + (o.alpha_final - o.alpha) * done;
  if (o.alpha_schedule == ArrowSchedule::exponential) return o.alpha * pow(o.alpha_final / o.alpha, done);
  return o.alpha;
}

/// alpha and beta of this step (methods.md A.3.5); s.t counts the committed steps before this one.
EVERGRAD_HD inline void choose_damping(const ArrowSolveInput& a) {
  const ArrowOptions& o = a.options;
  ArrowState& s = *a.state;
  s.alpha = scheduled_alpha(o, s.t);
  s.beta = o.damping == ArrowDamping::dimensionless ? o.kappa / s.trace : o.beta;
  if (o.damping == ArrowDamping::relative) {
    // Before the ramp below: alpha on the scale of a beta that is still zero would make the first step infinite.
    const double dimensions = o.relative_over_all ? double(a.parameters) : double(s.filled);
    s.alpha = larger(larger(1e-30, 1e-12 * s.largest_diagonal), o.rho * s.beta * s.trace / dimensions);
  }
  if (o.warmup == ArrowWarmup::beta_ramp && s.t < o.warmup_steps) s.beta *= double(s.t) / double(o.warmup_steps);
}

/// x = (alpha I + ratio K)^-1 rhs; on failure alpha x10, at most five times. False when all attempts failed.
EVERGRAD_HD inline bool damped_solve(ArrowSolveMemory& w, double ratio, double& alpha) {
  for (int attempt = 0; attempt < 6; ++attempt) {
    if (attempt > 0) alpha *= 10.0;
    for (int i = 0; i < w.n * w.n; ++i) w.matrix[i] = ratio * w.gram[i];
    for (int i = 0; i < w.n; ++i) w.matrix[i * w.n + i] += alpha;
    for (int i = 0; i < w.n; ++i) w.x[i] = w.rhs[i];
    if (cholesky_solve(w)) return true;
  }
  return false;
}

EVERGRAD_HD inline void finish_coefficients(ArrowState& s, const ArrowSolveMemory& w) {
  for (int i = 0; i < w.n; ++i) s.coefficient[w.slot[i]] = w.c[i] * s.clip[w.slot[i]];
}

/// u = G c with c = (alpha I + (beta/D) K)^-1 e_newest.
EVERGRAD_HD inline void solve_closed_form(ArrowState& s, ArrowSolveMemory& w, double ratio) {
  for (int i = 0; i < w.n; ++i) w.rhs[i] = i == 0 ? 1.0 : 0.0;
  // Disabled means absent: with beta = 0 the step is exactly g / alpha. A failed solve falls back to it as well.
  const bool solved = s.beta != 0.0 && damped_solve(w, ratio, s.alpha);
  for (int i = 0; i < w.n; ++i) w.c[i] = solved ? w.x[i] : i == 0 ? 1.0 / s.alpha : 0.0;
  // g_i.u = (K c)_i and |u|^2 = sum_i c_i (g_i.u) come from the Gram matrix: no pass over the parameters. K c is also
  // (D/beta) (e_newest - alpha c), but that difference cancels where the damping is weak.
  for (int i = 0; i < w.n; ++i) {
    double& overlap = s.overlap[w.slot[i]];
    for (int j = 0; j < w.n; ++j) overlap += w.gram[i * w.n + j] * w.c[j];
    s.norm_sq_update += w.c[i] * overlap;
  }
  s.norm_sq_update = larger(0.0, s.norm_sq_update);
  s.descent = s.overlap[w.slot[0]];
  finish_coefficients(s, w);
}

/// u = (1/alpha) [v - (beta/D) G y], y = (alpha I + (beta/D) K)^-1 G^T v. r = G^T v is kept up to date slot by slot:
/// v = mu v + clip g changes each <ring[j], v> by dots the observation has already taken.
EVERGRAD_HD inline void solve_general_form(const ArrowSolveInput& a, ArrowSolveMemory& w, double ratio) {
  ArrowState& s = *a.state;
  const int slots = a.options.window + 1, newest = w.slot[0];
  const double clip = s.clip[newest], mu = a.vector_mu;
  const auto dot = [&](int entry) { return total(a.dots, a.tensors, slots + 3, entry); };
  const double square = dot(slots), grad_vector = dot(slots + 1), ring_vector = dot(slots + 2);
  const double vector_gradient = mu * grad_vector + clip * square;  // <v, g>
  s.norm_sq_vector = mu * mu * s.norm_sq_vector + 2.0 * mu * clip * grad_vector + clip * clip * square;
  for (int i = 0; i < w.n; ++i) {
    const int j = w.slot[i];
    s.projection[j] = mu * (j == newest ? ring_vector : s.projection[j]) + clip * dot(j);
    w.rhs[i] = s.projection[j] * s.clip[j];
  }
  const bool solved = s.beta != 0.0 && damped_solve(w, ratio, s.alpha);
  double* const y = w.x;
  for (int i = 0; i < w.n && !solved; ++i) y[i] = 0.0;
  s.vector_coefficient = 1.0 / s.alpha;
  double yr = 0.0, yky = 0.0, gradient_window = 0.0;
  for (int i = 0; i < w.n; ++i) {
    const int slot = w.slot[i];
    w.c[i] = -ratio / s.alpha * y[i];
    s.overlap[slot] = solved ? y[i] : w.rhs[i] / s.alpha;  // G^T u = y, again by push-through
    yr += y[i] * w.rhs[i];
    gradient_window += w.c[i] * dot(slot) * s.clip[slot];
    for (int j = 0; j < w.n; ++j) yky += y[i] * w.gram[i * w.n + j] * y[j];
  }
  const double inverse = 1.0 / (s.alpha * s.alpha);
  s.norm_sq_update = larger(0.0, inverse * (s.norm_sq_vector - 2.0 * ratio * yr + ratio * ratio * yky));
  s.descent = clip * (s.vector_coefficient * vector_gradient + gradient_window);
  finish_coefficients(s, w);
}

}  // namespace arrow_detail

/// Commits the observed slot and writes coefficients, norms and damping into the state; see ArrowSolve.
EVERGRAD_HD inline void arrow_solve_step(const ArrowSolveInput& a, ArrowSolveMemory& w) {
  using namespace arrow_detail;
  ArrowState& s = *a.state;
  const int slots = a.options.window + 1, newest = int(s.next);
  if (!a.step->finite) {
    ++s.skipped;
    return;
  }
  for (int j = 0; j < slots; ++j) s.coefficient[j] = s.overlap[j] = 0.0;
  s.norm_sq_base = s.norm_sq_update = s.descent = s.vector_coefficient = 0.0;
  s.use_base = a.options.warmup == ArrowWarmup::base && s.t < a.options.warmup_steps;
  const double clip = a.step->clip_scale;
  const double square = a.dots ? total(a.dots, a.tensors, slots + 3, slots)
                               : total(a.grams, a.tensors, slots * slots, newest * slots + newest);
  s.norm_sq_gradient = square * clip * clip;
  s.committed = s.norm_sq_gradient > 0.0;
  if (!s.committed) return;

  s.clip[newest] = clip;
  s.next = (s.next + 1) % slots;
  s.filled = s.filled < a.options.window ? s.filled + 1 : a.options.window;
  s.largest_diagonal = larger(s.largest_diagonal, s.norm_sq_gradient);
  read_window(a, newest, w);
  const double divisor = double(a.options.divide_by_filled ? w.n : a.options.window);
  s.trace = w.trace / divisor;
  choose_damping(a);
  ++s.t;
  if (a.dots)
    solve_general_form(a, w, s.beta / divisor);
  else
    solve_closed_form(s, w, s.beta / divisor);
}

/// The same on the host, for both host tables.
struct ArrowSolve;
void arrow_solve_on_host(const ArrowSolve& a);
ArrowSolveInput arrow_solve_input(const ArrowSolve& a);

}  // namespace eg
