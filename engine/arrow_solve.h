// engine/arrow_solve.h - the W x W part of ARROW (methods.md A.3.2): a handful of doubles, the same code on every
// device.
//
// With C = (1/D) G G^T the step (alpha I + beta C)^-1 g equals G c with c = (alpha I + (beta/D) K)^-1 e_newest and
// K = G^T G, because g is itself the newest column of G (push-through identity). So the P-dimensional system is a W x W
// one. Device compilers read this file too: plain arrays, no std::.
#pragma once
#include <math.h>

#include <cstddef>
#include <cstdint>

#include "engine/dtype.h"
#include "engine/records.h"

namespace eg {

/// One system of ArrowSolve (kernels_arrow.h) as plain pointers.
struct ArrowSolveInput {
  const double* grams;  // [tensors, W+1, W+1]
  const double* dots;   // [tensors, W+4], or null: the closed form
  std::int64_t tensors, parameters;
  double vector_mu;
  ArrowOptions options;
  const StepRecord* step;
  ArrowState* state;
};

/// Bytes of working memory that a solve needs, aligned to 8: undefined before, garbage after.
EVERGRAD_HD constexpr std::size_t arrow_solve_bytes(int window) {
  const auto n = std::size_t(window);
  return (2 * n * n + 3 * n) * sizeof(double) + n * sizeof(int);
}
/// That memory, divided, and what every worker keeps for itself.
struct ArrowSolveMemory {
  double *gram,  // K with clip factors applied, n x n, newest column first
      *matrix, *rhs, *x, *c;
  int* slot;
  int n = 0;
  double trace = 0.0;

  EVERGRAD_HD ArrowSolveMemory(void* bytes, int window) {
    gram = static_cast<double*>(bytes), matrix = gram + window * window;
    rhs = matrix + window * window, x = rhs + window, c = x + window, slot = reinterpret_cast<int*>(c + window);
  }
};

/// Who solves: one thread, or the lanes of a warp (cuda/kernels/arrow.cu). Lanes share out what does not depend on one another;
/// every number comes from the same operations in the same order whoever does them. sync() shows all lanes what the
/// others have written.
struct OneWorker {
  static constexpr int lane = 0, lanes = 1;
  EVERGRAD_HD void sync() const {}
};

namespace arrow_detail {

EVERGRAD_HD inline double larger(double a, double b) { return a < b ? b : a; }

/// Solves matrix x = x for a symmetric positive definite matrix (overwritten) by Cholesky; false when it is not.
template <class Team>
EVERGRAD_HD bool cholesky_solve(const Team& team, const ArrowSolveMemory& w) {
  const int n = w.n;
  double* const a = w.matrix;
  double* const x = w.x;
  for (int j = 0; j < n; ++j) {
    double d = a[j * n + j];
    for (int k = 0; k < j; ++k) d -= a[j * n + k] * a[j * n + k];
    if (!(d > 0.0) || d - d != 0.0) return false;
    const double root = sqrt(d);
    for (int i = j + 1 + team.lane; i < n; i += team.lanes) {
      double s = a[i * n + j];
      for (int k = 0; k < j; ++k) s -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = s / root;
    }
    team.sync();  // the column is there, and all have read its diagonal
    if (team.lane == 0) a[j * n + j] = root;
  }
  // Forwards by columns, so that lanes share a column: x_i loses a_i0 x_0 first, then a_i1 x_1, as it would by rows.
  for (int k = 0; k < n; ++k) {
    if (team.lane == 0) x[k] /= a[k * n + k];
    team.sync();
    for (int i = k + 1 + team.lane; i < n; i += team.lanes) x[i] -= a[i * n + k] * x[k];
    team.sync();
  }
  // Backwards columns would come in the other order.
  for (int i = n - 1; i >= 0 && team.lane == 0; --i) {
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

template <class Team>
EVERGRAD_HD void read_window(const Team& team, const ArrowSolveInput& a, int newest, ArrowSolveMemory& w) {
  const ArrowState& s = *a.state;
  const int slots = a.options.window + 1;
  w.n = int(s.filled);
  for (int i = team.lane; i < w.n; i += team.lanes) w.slot[i] = (newest - i + slots) % slots;
  team.sync();
  for (int e = team.lane; e < w.n * w.n; e += team.lanes) {
    const int p = w.slot[e / w.n], q = w.slot[e % w.n];
    w.gram[e] = total(a.grams, a.tensors, slots * slots, p * slots + q) * s.clip[p] * s.clip[q];
  }
  team.sync();
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
template <class Team>
EVERGRAD_HD bool damped_solve(const Team& team, const ArrowSolveMemory& w, double ratio, ArrowState& state) {
  double alpha = state.alpha;
  bool solved = false;
  for (int attempt = 0; attempt < 6 && !solved; ++attempt) {
    if (attempt > 0) alpha *= 10.0;
    for (int e = team.lane; e < w.n * w.n; e += team.lanes) {
      w.matrix[e] = ratio * w.gram[e];
      if (e / w.n == e % w.n) w.matrix[e] += alpha;
    }
    for (int i = team.lane; i < w.n; i += team.lanes) w.x[i] = w.rhs[i];
    team.sync();
    solved = cholesky_solve(team, w);
    team.sync();  // x is there; after a failure all have seen it before the matrix is written again
  }
  if (team.lane == 0) state.alpha = alpha;
  team.sync();
  return solved;
}

EVERGRAD_HD inline void finish_coefficients(ArrowState& s, const ArrowSolveMemory& w) {
  for (int i = 0; i < w.n; ++i) s.coefficient[w.slot[i]] = w.c[i] * s.clip[w.slot[i]];
}

/// u = G c with c = (alpha I + (beta/D) K)^-1 e_newest.
template <class Team>
EVERGRAD_HD void solve_closed_form(const Team& team, ArrowState& s, const ArrowSolveMemory& w, double ratio) {
  for (int i = team.lane; i < w.n; i += team.lanes) w.rhs[i] = i == 0 ? 1.0 : 0.0;
  // Disabled means absent: with beta = 0 the step is exactly g / alpha. A failed solve falls back to it as well.
  const bool solved = s.beta != 0.0 && damped_solve(team, w, ratio, s);
  for (int i = team.lane; i < w.n; i += team.lanes) w.c[i] = solved ? w.x[i] : i == 0 ? 1.0 / s.alpha : 0.0;
  team.sync();
  // g_i.u = (K c)_i and |u|^2 = sum_i c_i (g_i.u) come from the Gram matrix: no pass over the parameters. K c is also
  // (D/beta) (e_newest - alpha c), but that difference cancels where the damping is weak.
  for (int i = team.lane; i < w.n; i += team.lanes) {
    double overlap = 0.0;
    for (int j = 0; j < w.n; ++j) overlap += w.gram[i * w.n + j] * w.c[j];
    s.overlap[w.slot[i]] = overlap;
  }
  team.sync();
  if (team.lane != 0) return;
  for (int i = 0; i < w.n; ++i) s.norm_sq_update += w.c[i] * s.overlap[w.slot[i]];
  s.norm_sq_update = larger(0.0, s.norm_sq_update);
  s.descent = s.overlap[w.slot[0]];
  finish_coefficients(s, w);
}

/// u = (1/alpha) [v - (beta/D) G y], y = (alpha I + (beta/D) K)^-1 G^T v. r = G^T v is kept up to date slot by slot:
/// v = mu v + clip g changes each <ring[j], v> by dots the observation has already taken.
template <class Team>
EVERGRAD_HD void solve_general_form(const Team& team, const ArrowSolveInput& a, const ArrowSolveMemory& w,
                                    double ratio) {
  ArrowState& s = *a.state;
  const int slots = a.options.window + 1, newest = w.slot[0];
  const double clip = s.clip[newest], mu = a.vector_mu;
  const auto dot = [&](int entry) { return total(a.dots, a.tensors, slots + 3, entry); };
  const double square = dot(slots), grad_vector = dot(slots + 1), ring_vector = dot(slots + 2);
  const double vector_gradient = mu * grad_vector + clip * square;  // <v, g>
  if (team.lane == 0)
    s.norm_sq_vector = mu * mu * s.norm_sq_vector + 2.0 * mu * clip * grad_vector + clip * clip * square;
  for (int i = team.lane; i < w.n; i += team.lanes) {
    const int j = w.slot[i];
    s.projection[j] = mu * (j == newest ? ring_vector : s.projection[j]) + clip * dot(j);
    w.rhs[i] = s.projection[j] * s.clip[j];
  }
  team.sync();
  const bool solved = s.beta != 0.0 && damped_solve(team, w, ratio, s);
  if (team.lane != 0) return;
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

/// Commits the observed slot, or says in the state that there is no step.
EVERGRAD_HD inline void commit(const ArrowSolveInput& a) {
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
}

}  // namespace arrow_detail

/// Commits the observed slot and writes coefficients, norms and damping into the state; see ArrowSolve. `bytes`:
/// arrow_solve_bytes of working memory.
template <class Team>
EVERGRAD_HD void arrow_solve_step(const Team& team, const ArrowSolveInput& a, void* bytes) {
  using namespace arrow_detail;
  ArrowState& s = *a.state;
  const int newest = int(s.next);
  team.sync();  // all have read it
  if (team.lane == 0) commit(a);
  team.sync();
  if (!a.step->finite || !s.committed) return;
  ArrowSolveMemory w(bytes, a.options.window);
  read_window(team, a, newest, w);
  const double divisor = double(a.options.divide_by_filled ? w.n : a.options.window);
  if (team.lane == 0) {
    s.trace = w.trace / divisor;
    choose_damping(a);
    ++s.t;
  }
  team.sync();
  if (a.dots)
    solve_general_form(team, a, w, s.beta / divisor);
  else
    solve_closed_form(team, s, w, s.beta / divisor);
}

/// The same on the host, for both host tables.
struct ArrowSolve;
struct ArrowSystem;
void arrow_solve_on_host(const ArrowSolve& a);
ArrowSolveInput arrow_solve_input(const ArrowSolve& a, const ArrowSystem& system);

}  // namespace eg
