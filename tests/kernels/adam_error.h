// tests/kernels/adam_error.h - rounding errors of one element of Adam in fp32, shared by the updates that take its
// step.
//
// With D the absolute terms of the clipped (and decayed) gradient, which is off by 3 u D: m = b1 m + (1-b1) g costs 3 u
// of its old part and 6 u of its new one; v = b2 v + (1-b2) g^2 likewise, the square doubling the gradient's share. The
// direction m c1 / (sqrt(v) c2 + eps) takes both through the quotient; the root halves the share of v's.
#pragma once
#include "tests/tolerance.h"

namespace eg::test {

struct AdamError {
  double m = 0.0, v = 0.0;                        // of the stored moments
  double direction = 0.0, direction_error = 0.0;  // |direction|, and what it may be off by
};

/// t: updates before this one; m and v: the new moments.
inline AdamError adam_error(double old_m, double old_v, double m, double v, double D, double t, double beta1 = 0.9,
                            double beta2 = 0.999, double eps = 1e-8) {
  const double u = unit_roundoff(DType::f32);
  const double c1 = 1.0 / (1.0 - std::pow(beta1, t + 1.0)), c2 = 1.0 / std::sqrt(1.0 - std::pow(beta2, t + 1.0));
  AdamError e;
  e.m = 3.0 * u * std::abs(beta1 * old_m) + 6.0 * u * (1.0 - beta1) * D;
  e.v = 3.0 * u * beta2 * old_v + 11.0 * u * (1.0 - beta2) * D * D;
  const double denominator = std::sqrt(v) * c2 + eps;
  e.direction = std::abs(m) * c1 / denominator;
  const double root_error = v > 0.0 ? std::min(std::sqrt(e.v), e.v / (2.0 * std::sqrt(v))) : std::sqrt(e.v);
  const double denominator_error = c2 * root_error + 4.0 * u * denominator;
  e.direction_error = e.m * c1 / denominator + e.direction * (denominator_error / denominator + 5.0 * u);
  return e;
}

}  // namespace eg::test
