// apps/diagnosis/similarity.cpp - see similarity.h.
#include "apps/diagnosis/similarity.h"

#include <cmath>
#include <vector>

#include "engine/error.h"

namespace eg {
namespace {

/// x x^T, n x n.
std::vector<double> gram(std::span<const double> x, std::int64_t n) {
  const std::size_t rows = std::size_t(n), d = x.size() / rows;
  check(n > 0 && d * rows == x.size(), Kind::shape,
        [&] { return cat("cka: ", x.size(), " numbers are no rows of ", n, " samples"); });
  std::vector<double> k(rows * rows);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double dot = 0.0;
      for (std::size_t c = 0; c < d; ++c) dot += x[i * d + c] * x[j * d + c];
      k[i * rows + j] = k[j * rows + i] = dot;
    }
  return k;
}

void centre(std::vector<double>& k, std::size_t n) {
  std::vector<double> mean(n, 0.0);
  double all = 0.0;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) mean[i] += k[i * n + j] / double(n);
  for (const double m : mean) all += m / double(n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) k[i * n + j] += all - mean[i] - mean[j];
}

double product(const std::vector<double>& k, const std::vector<double>& l) {
  double sum = 0.0;
  for (std::size_t i = 0; i < k.size(); ++i) sum += k[i] * l[i];
  return sum;
}

/// The unbiased Hilbert-Schmidt independence criterion of two Gram matrices whose diagonals are zero.
double hsic(const std::vector<double>& k, const std::vector<double>& l, std::size_t n) {
  std::vector<double> rows_k(n, 0.0), rows_l(n, 0.0);
  double sum_k = 0.0, sum_l = 0.0, crossed = 0.0;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) rows_k[i] += k[i * n + j], rows_l[i] += l[i * n + j];
  for (std::size_t i = 0; i < n; ++i) sum_k += rows_k[i], sum_l += rows_l[i], crossed += rows_k[i] * rows_l[i];
  const double m = double(n);
  return (product(k, l) + sum_k * sum_l / ((m - 1) * (m - 2)) - 2.0 * crossed / (m - 2)) / (m * (m - 3));
}

}  // namespace

double cka_biased(std::span<const double> x, std::span<const double> y, std::int64_t n) {
  std::vector<double> k = gram(x, n), l = gram(y, n);
  centre(k, std::size_t(n)), centre(l, std::size_t(n));
  const double scale = std::sqrt(product(k, k) * product(l, l));
  return scale > 0.0 ? product(k, l) / scale : 0.0;
}

double cka(std::span<const double> x, std::span<const double> y, std::int64_t n) {
  check(n >= 4, Kind::usage, [&] { return cat("the unbiased CKA needs 4 samples or more, not ", n); });
  std::vector<double> k = gram(x, n), l = gram(y, n);
  for (std::size_t i = 0; i < std::size_t(n); ++i) k[i * std::size_t(n) + i] = l[i * std::size_t(n) + i] = 0.0;
  const double own = hsic(k, k, std::size_t(n)) * hsic(l, l, std::size_t(n));
  return own > 0.0 ? hsic(k, l, std::size_t(n)) / std::sqrt(own) : 0.0;
}

}  // namespace eg
