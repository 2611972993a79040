// engine/arrow_solve.cpp - see arrow_solve.h.
#include "engine/arrow_solve.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace eg {
namespace {

using Matrix = std::array<double, std::size_t(kArrowMaxWindow) * kArrowMaxWindow>;
using Vector = std::array<double, std::size_t(kArrowMaxWindow)>;

/// Solves A x = b for symmetric positive definite A (n x n, row-major, overwritten) by Cholesky; false when A is not.
bool cholesky_solve(Matrix& a, Vector& x, int n) {
  const auto at = [&](int i, int j) -> double& { return a[std::size_t(i * n + j)]; };
  for (int j = 0; j < n; ++j) {
    double d = at(j, j);
    for (int k = 0; k < j; ++k) d -= at(j, k) * at(j, k);
    if (!(d > 0.0) || !std::isfinite(d)) return false;
    at(j, j) = std::sqrt(d);
    for (int i = j + 1; i < n; ++i) {
      double s = at(i, j);
      for (int k = 0; k < j; ++k) s -= at(i, k) * at(j, k);
      at(i, j) = s / at(j, j);
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < i; ++k) x[std::size_t(i)] -= at(i, k) * x[std::size_t(k)];
    x[std::size_t(i)] /= at(i, i);
  }
  for (int i = n - 1; i >= 0; --i) {
    for (int k = i + 1; k < n; ++k) x[std::size_t(i)] -= at(k, i) * x[std::size_t(k)];
    x[std::size_t(i)] /= at(i, i);
  }
  return true;
}

/// The group's window with its clip factors applied, newest column first.
struct Window {
  int n = 0;
  std::array<int, std::size_t(kArrowMaxWindow)> slot{};
  Matrix gram{};  // K = G^T G, n x n
  double trace = 0.0;
  double k(int i, int j) const { return gram[std::size_t(i * n + j)]; }
};

/// Sum over the group's tensors of one entry of an [T, entries] array.
double total(const TensorView& per_tensor, std::int64_t entries, std::int64_t entry) {
  double sum = 0.0;
  for (std::int64_t t = 0; t < per_tensor.dim(0); ++t) sum += per_tensor.as<double>()[t * entries + entry];
  return sum;
}

Window read_window(const ArrowSolve& a, int newest) {
  const ArrowState& s = *a.state;
  const int slots = a.options.window + 1;
  Window w;
  w.n = int(s.filled);
  for (int i = 0; i < w.n; ++i) w.slot[std::size_t(i)] = (newest - i + slots) % slots;
  for (int i = 0; i < w.n; ++i)
    for (int j = 0; j < w.n; ++j) {
      const int p = w.slot[std::size_t(i)], q = w.slot[std::size_t(j)];
      w.gram[std::size_t(i * w.n + j)] = total(a.grams, slots * slots, p * slots + q) * s.clip[p] * s.clip[q];
    }
  for (int i = 0; i < w.n; ++i) w.trace += w.k(i, i);
  return w;
}

/// The given alpha after t committed steps.
double scheduled_alpha(const ArrowOptions& o, std::int64_t t) {
  const double done = o.alpha_steps > 0 ? std::min(1.0, double(t) / double(o.alpha_steps)) : 1.0;
  if (o.alpha_schedule == ArrowSchedule::linear) return o.alpha + (o.alpha_final - o.alpha) * done;
  if (o.alpha_schedule == ArrowSchedule::exponential) return o.alpha * std::pow(o.alpha_final / o.alpha, done);
  return o.alpha;
}

/// alpha and beta of this step (methods.md A.3.5); s.t counts the committed steps before this one.
void choose_damping(const ArrowSolve& a) {
  const ArrowOptions& o = a.options;
  ArrowState& s = *a.state;
  s.alpha = scheduled_alpha(o, s.t);
  s.beta = o.damping == ArrowDamping::dimensionless ? o.kappa / s.trace : o.beta;
  if (o.damping == ArrowDamping::relative) {
    // Before the ramp below: alpha on the scale of a beta that is still zero would make the first step infinite.
    const double dimensions = o.relative_over_all ? double(a.parameters) : double(s.filled);
    s.alpha = std::max({1e-30, 1e-12 * s.largest_diagonal, o.rho * s.beta * s.trace / dimensions});
  }
  if (o.warmup == ArrowWarmup::beta_ramp && s.t < o.warmup_steps) s.beta *= double(s.t) / double(o.warmup_steps);
}

/// (alpha I + ratio K)^-1 rhs; on failure alpha x10, at most five times. False when all attempts failed.
bool damped_solve(const Window& w, double ratio, double& alpha, const Vector& rhs, Vector& x) {
  for (int attempt = 0; attempt < 6; ++attempt) {
    if (attempt > 0) alpha *= 10.0;
    Matrix m;
    for (int i = 0; i < w.n * w.n; ++i) m[std::size_t(i)] = ratio * w.gram[std::size_t(i)];
    for (int i = 0; i < w.n; ++i) m[std::size_t(i * w.n + i)] += alpha;
    x = rhs;
    if (cholesky_solve(m, x, w.n)) return true;
  }
  return false;
}

void finish_coefficients(ArrowState& s, const Window& w, const Vector& c) {
  for (int i = 0; i < w.n; ++i)
    s.coefficient[w.slot[std::size_t(i)]] = c[std::size_t(i)] * s.clip[w.slot[std::size_t(i)]];
}

/// u = G c with c = (alpha I + (beta/D) K)^-1 e_newest.
void solve_closed_form(ArrowState& s, const Window& w, double ratio) {
  Vector e{}, c{};
  e[0] = 1.0;
  // Disabled means absent: with beta = 0 the step is exactly g / alpha. A failed solve falls back to it as well.
  if (s.beta == 0.0 || !damped_solve(w, ratio, s.alpha, e, c)) c = {}, c[0] = 1.0 / s.alpha;
  // g_i.u = (K c)_i and |u|^2 = sum_i c_i (g_i.u) come from the Gram matrix: no pass over the parameters. K c is also
  // (D/beta) (e_newest - alpha c), but that difference cancels where the damping is weak.
  for (int i = 0; i < w.n; ++i) {
    double& overlap = s.overlap[w.slot[std::size_t(i)]];
    for (int j = 0; j < w.n; ++j) overlap += w.k(i, j) * c[std::size_t(j)];
    s.norm_sq_update += c[std::size_t(i)] * overlap;
  }
  s.norm_sq_update = std::max(0.0, s.norm_sq_update);
  s.descent = s.overlap[w.slot[0]];
  finish_coefficients(s, w, c);
}

/// u = (1/alpha) [v - (beta/D) G y], y = (alpha I + (beta/D) K)^-1 G^T v. r = G^T v is kept up to date slot by slot:
/// v = mu v + clip g changes each <ring[j], v> by dots the observation has already taken.
void solve_general_form(const ArrowSolve& a, const Window& w, double ratio) {
  ArrowState& s = *a.state;
  const int slots = a.options.window + 1, newest = w.slot[0];
  const double clip = s.clip[newest], mu = a.vector_mu;
  const auto dot = [&](int entry) { return total(a.dots, slots + 3, entry); };
  const double square = dot(slots), grad_vector = dot(slots + 1), ring_vector = dot(slots + 2);
  const double vector_gradient = mu * grad_vector + clip * square;  // <v, g>
  s.norm_sq_vector = mu * mu * s.norm_sq_vector + 2.0 * mu * clip * grad_vector + clip * clip * square;
  Vector r{}, y{};
  for (int i = 0; i < w.n; ++i) {
    const int j = w.slot[std::size_t(i)];
    s.projection[j] = mu * (j == newest ? ring_vector : s.projection[j]) + clip * dot(j);
    r[std::size_t(i)] = s.projection[j] * s.clip[j];
  }
  const bool solved = s.beta != 0.0 && damped_solve(w, ratio, s.alpha, r, y);
  if (!solved) y = {};
  s.vector_coefficient = 1.0 / s.alpha;
  Vector c{};
  double yr = 0.0, yky = 0.0, gradient_window = 0.0;
  for (int i = 0; i < w.n; ++i) {
    const int slot = w.slot[std::size_t(i)];
    c[std::size_t(i)] = -ratio / s.alpha * y[std::size_t(i)];
    s.overlap[slot] = solved ? y[std::size_t(i)] : r[std::size_t(i)] / s.alpha;  // G^T u = y, again by push-through
    yr += y[std::size_t(i)] * r[std::size_t(i)];
    gradient_window += c[std::size_t(i)] * dot(slot) * s.clip[slot];
    for (int j = 0; j < w.n; ++j) yky += y[std::size_t(i)] * w.k(i, j) * y[std::size_t(j)];
  }
  const double inverse = 1.0 / (s.alpha * s.alpha);
  s.norm_sq_update = std::max(0.0, inverse * (s.norm_sq_vector - 2.0 * ratio * yr + ratio * ratio * yky));
  s.descent = clip * (s.vector_coefficient * vector_gradient + gradient_window);
  finish_coefficients(s, w, c);
}

}  // namespace

void arrow_solve_on_host(const ArrowSolve& a) {
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
  const double square =
      a.dots ? total(a.dots, slots + 3, slots) : total(a.grams, slots * slots, newest * slots + newest);
  s.norm_sq_gradient = square * clip * clip;
  s.committed = s.norm_sq_gradient > 0.0;
  if (!s.committed) return;

  s.clip[newest] = clip;
  s.next = (s.next + 1) % slots;
  s.filled = std::min<std::int64_t>(s.filled + 1, a.options.window);
  s.largest_diagonal = std::max(s.largest_diagonal, s.norm_sq_gradient);
  const Window w = read_window(a, newest);
  const double divisor = double(a.options.divide_by_filled ? w.n : a.options.window);
  s.trace = w.trace / divisor;
  choose_damping(a);
  ++s.t;
  if (a.dots)
    solve_general_form(a, w, s.beta / divisor);
  else
    solve_closed_form(s, w, s.beta / divisor);
}

}  // namespace eg
