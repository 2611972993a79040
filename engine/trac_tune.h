// engine/trac_tune.h - the scalar part of TRAC (Muppidi et al. 2024, arXiv:2405.16642; methods.md A.4): six tuners with
// different memories watch how well the way from the reference point agrees with the gradient, and add up to one scale.
//
//   v_j = b_j^2 v_j + h^2;  sigma_j = b_j sigma_j - h;  S = sum_j s_prev / erfi(1/sqrt 2) erfi(sigma_j / (sqrt(2 v_j) + eps))
//
// A handful of doubles, the same code on every device.
#pragma once
#include <math.h>

#include <cstdint>

#include "engine/dtype.h"

namespace eg {

inline constexpr int kTracTuners = 6;
/// The state, f64: the scale, the scale of the step before, h, how often a tuner was cut, then sigma_j, then v_j.
enum TracSlot : int { kTracScale, kTracBefore, kTracH, kTracCut, kTracSigma, kTracV = kTracSigma + kTracTuners };
inline constexpr int kTracState = kTracV + kTracTuners;
inline constexpr double kTracEps = 1e-8, kTracStart = 1e-8, kTracMostScale = 1e6;

/// erfi(x) = 2/sqrt(pi) sum_k x^(2k+1) / (k! (2k+1)): all terms have one sign, so nothing cancels. |x| <= 20.
EVERGRAD_HD inline double trac_erfi(double x) {
  double term = x, sum = x;
  for (int k = 1; k < 4000; ++k) {
    term *= x * x / double(k);
    const double add = term / double(2 * k + 1);
    sum += add;
    if (fabs(add) < 1e-17 * fabs(sum)) break;
  }
  return 1.1283791670955126 * sum;
}

/// One update of the scale. h = <gradient, way from the reference over the scale>.
EVERGRAD_HD inline void trac_tune(double* state, double h) {
  constexpr double kForgets[kTracTuners] = {0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999};
  constexpr double kMostArgument = 20.0;  // beyond, a double overflows; a tuner that gets there is cut, and counted
  const double unit = kTracStart / 0.953438269251;  // s_prev / erfi(1 / sqrt 2)
  double scale = 0.0;
  for (int j = 0; j < kTracTuners; ++j) {
    double &sigma = state[kTracSigma + j], &v = state[kTracV + j];
    v = kForgets[j] * kForgets[j] * v + h * h;
    sigma = kForgets[j] * sigma - h;
    double x = sigma / (sqrt(2.0 * v) + kTracEps);
    if (fabs(x) > kMostArgument) x = x > 0.0 ? kMostArgument : -kMostArgument, state[kTracCut] += 1.0;
    scale += unit * trac_erfi(x);
  }
  if (scale > kTracMostScale) scale = kTracMostScale, state[kTracCut] += 1.0;
  state[kTracBefore] = state[kTracScale], state[kTracScale] = scale, state[kTracH] = h;
}

}  // namespace eg
