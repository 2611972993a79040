// tests/kernels/norm_bounds.h - rounding errors of layer norm, for one row of C numbers in fp32: derived once, used for
// layer norm and for the norm of q and k.
//
// Forward. The mean m is a sum of C terms over C: e_m = sum_error(C, sum |x|) / C + u |m|. Every distance d = x - m is
// off by e_m + u |d|. Because sum d = 0, the common part e_m enters the variance V only squared:
//   e_V = e_m^2 + (4 sqrt(C) + 3) u V.
// r = 1/sqrt(V + eps) is off by the share rho = e_V / (2 (V + eps)) + 3 u, and h = d r by e_h = r (e_m + u |d|) +
// |h| (rho + u). y = h gamma + beta adds two roundings.
//
// Backward starts from the stored m and r. h = (x - m) r has two roundings; g = dy gamma one; the means of g and of g h
// are sums of C terms that carry up to three; then dx = r (g - mean_g - h mean_gh).
#pragma once
#include <vector>

#include "tests/tolerance.h"

namespace eg::test {

struct NormForward {
  double mean = 0.0, rstd = 0.0;  // exact
  double mean_error = 0.0, rstd_error = 0.0;
  std::vector<double> y_error;
};

inline NormForward norm_forward(const double* x, const std::vector<double>& gamma, const std::vector<double>& beta,
                                double eps) {
  const double u = unit_roundoff(DType::f32);
  const std::size_t C = gamma.size();
  const double count = double(C);
  NormForward f;
  double absolute = 0.0, variance = 0.0;
  for (std::size_t c = 0; c < C; ++c) f.mean += x[c] / count, absolute += std::abs(x[c]);
  for (std::size_t c = 0; c < C; ++c) variance += (x[c] - f.mean) * (x[c] - f.mean) / count;
  f.rstd = 1.0 / std::sqrt(variance + eps);
  f.mean_error = sum_error(std::int64_t(C), absolute) / count + u * std::abs(f.mean);
  const double variance_error = f.mean_error * f.mean_error + sum_error(std::int64_t(C), variance) + 3.0 * u * variance;
  const double share = variance_error / (2.0 * (variance + eps)) + 3.0 * u;
  f.rstd_error = f.rstd * share;
  for (std::size_t c = 0; c < C; ++c) {
    const double d = x[c] - f.mean, h = d * f.rstd;
    const double h_error = f.rstd * (f.mean_error + u * std::abs(d)) + std::abs(h) * (share + u);
    f.y_error.push_back(std::abs(gamma[c]) * h_error + 2.0 * u * (std::abs(h * gamma[c]) + std::abs(beta[c])));
  }
  return f;
}

/// Errors of dx (before anything is added to it), and what this row adds to the errors of dgamma and dbeta: `dgamma`
/// and `dbeta` gather the absolute terms of those sums.
inline std::vector<double> norm_backward(const double* x, const double* dy, const std::vector<double>& gamma,
                                         double mean, double rstd, double* dgamma, double* dbeta) {
  const double u = unit_roundoff(DType::f32);
  const std::size_t C = gamma.size();
  const double count = double(C);
  double g_sum = 0.0, gh_sum = 0.0, g_abs = 0.0, gh_abs = 0.0;
  for (std::size_t c = 0; c < C; ++c) {
    const double h = (x[c] - mean) * rstd, g = dy[c] * gamma[c];
    g_sum += g, gh_sum += g * h, g_abs += std::abs(g), gh_abs += std::abs(g * h);
    dgamma[c] += std::abs(dy[c] * h), dbeta[c] += std::abs(dy[c]);
  }
  const double mean_g = g_sum / count, mean_gh = gh_sum / count;
  const double mean_g_error = (sum_error(std::int64_t(C), g_abs) + u * g_abs) / count + u * std::abs(mean_g);
  const double mean_gh_error = (sum_error(std::int64_t(C), gh_abs) + 3.0 * u * gh_abs) / count + u * std::abs(mean_gh);
  std::vector<double> error;
  for (std::size_t c = 0; c < C; ++c) {
    const double h = (x[c] - mean) * rstd, g = dy[c] * gamma[c];
    error.push_back(rstd * (mean_g_error + std::abs(h) * mean_gh_error +
                            4.0 * u * (std::abs(g) + std::abs(mean_g) + std::abs(h * mean_gh))));
  }
  return error;
}

/// A column of dgamma: R terms with up to three roundings each, on top of what was there.
inline double dgamma_error(std::int64_t rows, double absolute, double before) {
  return sum_error(rows + 1, absolute + std::abs(before)) + 3.0 * unit_roundoff(DType::f32) * absolute;
}

}  // namespace eg::test
