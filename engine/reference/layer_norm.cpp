// engine/reference/layer_norm.cpp - layer norm over the last axis (Ba, Kiros, Hinton 2016, arXiv:1607.06450), with the
// residual sum that comes before it.
//
//   forward    s = x + residual,   m = mean_c(s),   r = 1 / sqrt(mean_c((s - m)^2) + eps),   h = (s - m) r
//              y = h gamma + beta
//   backward   g = dy gamma
//              ds = r (g - mean_c(g) - h mean_c(g h)) + dsum
//              dgamma = sum over rows of dy h,   dbeta = sum over rows of dy
//
// The two means in ds are what flows back through m and through r: ds is orthogonal to 1 and to h, because y does not
// change when s is shifted or scaled. dsum is the gradient that reaches s on its other path, the residual stream.
// Shapes: x, residual, sum, y and their gradients [R,C]; gamma, beta [C]; mean, rstd [R].
#include <cmath>
#include <vector>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {

void layer_norm_fwd(const LayerNormFwd& a, Stream) {
  const std::int64_t R = a.x.rows(), C = a.x.cols();
  for (std::int64_t row = 0; row < R; ++row) {
    const std::int64_t first = row * C;
    for (std::int64_t c = 0; a.residual && c < C; ++c)
      put(a.sum, first + c, get(a.x, first + c) + get(a.residual, first + c));
    const TensorView& s = a.residual ? a.sum : a.x;  // the stored sum: backward normalises it again
    double mean = 0.0, variance = 0.0;
    for (std::int64_t c = 0; c < C; ++c) mean += get(s, first + c) / double(C);
    for (std::int64_t c = 0; c < C; ++c) variance += std::pow(get(s, first + c) - mean, 2) / double(C);
    const double rstd = 1.0 / std::sqrt(variance + a.eps);
    put(a.mean, row, mean);
    put(a.rstd, row, rstd);
    for (std::int64_t c = 0; c < C; ++c)
      put(a.y, first + c, (get(s, first + c) - mean) * rstd * get(a.gamma, c) + get(a.beta, c));
  }
}

void layer_norm_bwd(const LayerNormBwd& a, Stream) {
  const std::int64_t R = a.x.rows(), C = a.x.cols();
  std::vector<double> dgamma(std::size_t(C), 0.0), dbeta(dgamma);
  for (std::int64_t row = 0; row < R; ++row) {
    const std::int64_t first = row * C;
    const double mean = get(a.mean, row), rstd = get(a.rstd, row);
    double mean_g = 0.0, mean_gh = 0.0;
    for (std::int64_t c = 0; c < C; ++c) {
      const double dy = get(a.dy, first + c), h = (get(a.x, first + c) - mean) * rstd, g = dy * get(a.gamma, c);
      dgamma[std::size_t(c)] += dy * h;
      dbeta[std::size_t(c)] += dy;
      mean_g += g / double(C);
      mean_gh += g * h / double(C);
    }
    for (std::int64_t c = 0; c < C; ++c) {
      const double g = get(a.dy, first + c) * get(a.gamma, c), h = (get(a.x, first + c) - mean) * rstd;
      const double other_path = a.dsum ? get(a.dsum, first + c) : 0.0;
      put(a.dx, first + c, rstd * (g - mean_g - h * mean_gh) + other_path, a.accumulate);
    }
  }
  for (std::int64_t c = 0; c < C; ++c) {
    if (a.dgamma) put(a.dgamma, c, dgamma[std::size_t(c)], a.accumulate_params);
    if (a.dbeta) put(a.dbeta, c, dbeta[std::size_t(c)], a.accumulate_params);
  }
}

}  // namespace eg::reference
