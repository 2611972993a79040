// engine/cpu/spectral.cpp - power iteration and the penalty on the largest singular value: the matrix is read twice, the
// gradient read and written once.
#include <cmath>
#include <vector>

#include "engine/cpu/kernels.h"
#include "engine/parallel.h"

namespace eg::cpu {
namespace {

constexpr std::int64_t kColumns = 256, kRows = 16;  // of a task

double length(const float* x, std::int64_t n) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < n; ++i) sum += double(x[i]) * double(x[i]);
  return std::sqrt(sum);
}

/// Sixteen partial sums, so that the loop can use vectors of any width and always adds in the same order.
float product(const float* a, const float* b, std::int64_t n) {
  float partial[16] = {};
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int lane = 0; lane < 16; ++lane) partial[lane] += a[i + lane] * b[i + lane];
  for (; i < n; ++i) partial[i % 16] += a[i] * b[i];
  float sum = 0.0f;
  for (const float p : partial) sum += p;
  return sum;
}

template <class T>
void add_outer(T* grad, const float* u, const float* v, std::int64_t rows, std::int64_t columns, double slope) {
  parallel_for(rows, kRows, [&](std::int64_t first, std::int64_t last, std::int64_t) {
    for (std::int64_t r = first; r < last; ++r) {
      const float factor = float(slope * double(u[r]));
      T* const g = grad + r * columns;
      for (std::int64_t c = 0; c < columns; ++c) g[c] = T(float(g[c]) + factor * v[c]);
    }
  });
}

}  // namespace

void spectral_penalty(const SpectralPenalty& a, Stream) {
  const std::int64_t rows = a.u.size(), columns = a.v.size();
  const float *const w = a.weight.as<float>(), *const u = a.u.as<float>();
  float *const v = a.v.as<float>(), *const next = a.next.as<float>();
  parallel_for(columns, kColumns, [&](std::int64_t first, std::int64_t last, std::int64_t) {
    for (std::int64_t c = first; c < last; ++c) v[c] = 0.0f;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = first; c < last; ++c) v[c] += w[r * columns + c] * u[r];
  });
  if (const double n = length(v, columns); n > 0.0)
    for (std::int64_t c = 0; c < columns; ++c) v[c] = float(double(v[c]) / n);
  parallel_for(rows, kRows, [&](std::int64_t first, std::int64_t last, std::int64_t) {
    for (std::int64_t r = first; r < last; ++r) next[r] = product(w + r * columns, v, columns);
  });
  const double sigma = length(next, rows);
  a.sigma.as<float>()[0] = float(sigma);
  for (std::int64_t r = 0; r < rows; ++r) next[r] = sigma == 0.0 ? u[r] : float(double(next[r]) / sigma);
  if (sigma == 0.0) return;
  const double slope = 2.0 * a.strength * a.k * std::pow(sigma, a.k - 1) * (std::pow(sigma, a.k) - a.target);
  if (a.grad.dtype == DType::bf16)
    add_outer(a.grad.as<bf16>(), next, v, rows, columns, slope);
  else
    add_outer(a.grad.as<float>(), next, v, rows, columns, slope);
}

}  // namespace eg::cpu
