// engine/reference/spectral.cpp - power iteration and the penalty on the largest singular value (methods.md B.6).
#include <cmath>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {
namespace {

double length(const TensorView& x) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < x.size(); ++i) sum += get(x, i) * get(x, i);
  return std::sqrt(sum);
}

void scale(const TensorView& x, double factor) {
  for (std::int64_t i = 0; i < x.size(); ++i) put(x, i, factor * get(x, i));
}

}  // namespace

void spectral_penalty(const SpectralPenalty& a, Stream) {
  const std::int64_t rows = a.u.size(), columns = a.v.size();
  for (std::int64_t c = 0; c < columns; ++c) {
    double sum = 0.0;
    for (std::int64_t r = 0; r < rows; ++r) sum += get(a.weight, r * columns + c) * get(a.u, r);
    put(a.v, c, sum);
  }
  if (const double n = length(a.v); n > 0.0) scale(a.v, 1.0 / n);
  for (std::int64_t r = 0; r < rows; ++r) {
    double sum = 0.0;
    for (std::int64_t c = 0; c < columns; ++c) sum += get(a.weight, r * columns + c) * get(a.v, c);
    put(a.next, r, sum);
  }
  const double sigma = length(a.next);
  put(a.sigma, 0, sigma);
  if (sigma == 0.0) {
    for (std::int64_t r = 0; r < rows; ++r) put(a.next, r, get(a.u, r));
    return;
  }
  scale(a.next, 1.0 / sigma);
  const double slope = 2.0 * a.strength * a.k * std::pow(sigma, a.k - 1) * (std::pow(sigma, a.k) - a.target);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::int64_t i = r * columns + c;
      put(a.grad, i, get(a.grad, i) + slope * get(a.next, r) * get(a.v, c));
    }
}

}  // namespace eg::reference
