// engine/reference/gelu.h - GELU and its derivative for one number, in double (Hendrycks & Gimpel 2016,
// arXiv:1606.08415).
//
//   erf form    g(x) = x Phi(x)                          g'(x) = Phi(x) + x phi(x)
//   tanh form   g(x) = x (1 + tanh u) / 2                g'(x) = (1 + tanh u) / 2 + x (1 - tanh^2 u) u' / 2
//               u    = sqrt(2/pi) (x + 0.044715 x^3)     u'    = sqrt(2/pi) (1 + 3 * 0.044715 x^2)
//
// Phi and phi are the distribution function and the density of the standard normal.
#pragma once
#include <cmath>

#include "engine/kernels.h"

namespace eg::reference {

// Phi(x) = erfc(-x / sqrt 2) / 2, not (1 + erf(x / sqrt 2)) / 2: far to the left erf is -1 and the sum has no digits.
inline double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
inline double normal_density(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2.0 * M_PI); }

inline double gelu(GeluKind kind, double x) {
  if (kind == GeluKind::erf) return x * normal_cdf(x);
  const double u = std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1.0 + std::tanh(u));
}

inline double gelu_gradient(GeluKind kind, double x) {
  if (kind == GeluKind::erf) return normal_cdf(x) + x * normal_density(x);
  const double u = std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x), t = std::tanh(u);
  const double du = std::sqrt(2.0 / M_PI) * (1.0 + 3.0 * 0.044715 * x * x);
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * du;
}

}  // namespace eg::reference
