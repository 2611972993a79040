// apps/diagnosis/circuits.cpp - see circuits.h.
#include "apps/diagnosis/circuits.h"

#include <algorithm>
#include <cmath>

#include "apps/diagnosis/spectrum.h"
#include "engine/error.h"

namespace eg {
namespace {

/// Lower L with L L^T = a for a positive semidefinite a; a pivot that is nothing but rounding gives a column of zeros.
std::vector<double> cholesky(std::span<const double> a, int n) {
  std::vector<double> l(a.size(), 0.0);
  const auto at = [&](int i, int j) -> double& { return l[std::size_t(i) * std::size_t(n) + std::size_t(j)]; };
  double largest = 0.0;
  for (int i = 0; i < n; ++i) largest = std::max(largest, a[std::size_t(i) * std::size_t(n) + std::size_t(i)]);
  for (int j = 0; j < n; ++j) {
    for (int i = j; i < n; ++i) {
      double sum = a[std::size_t(i) * std::size_t(n) + std::size_t(j)];
      for (int k = 0; k < j; ++k) sum -= at(i, k) * at(j, k);
      at(i, j) = sum;
    }
    const double pivot = at(j, j);
    const double scale = pivot > double(n) * 0x1p-52 * largest ? 1.0 / std::sqrt(pivot) : 0.0;
    for (int i = j; i < n; ++i) at(i, j) *= scale;
  }
  return l;
}

/// Gram matrix of n vectors: vector i is x[i * step + c * stride] over c < length.
std::vector<double> gram(std::span<const double> x, std::int64_t n, std::int64_t step, std::int64_t length,
                         std::int64_t stride) {
  std::vector<double> g(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      double sum = 0.0;
      for (std::int64_t c = 0; c < length; ++c)
        sum += x[std::size_t(i * step + c * stride)] * x[std::size_t(j * step + c * stride)];
      g[std::size_t(i * n + j)] = g[std::size_t(j * n + i)] = sum;
    }
  return g;
}

}  // namespace

std::vector<double> product_singular_values(std::span<const double> gram_a, std::span<const double> gram_b, int n) {
  const auto size = std::size_t(n) * std::size_t(n);
  check(n > 0 && gram_a.size() == size && gram_b.size() == size, Kind::shape, [&] {
    return cat("product_singular_values: ", gram_a.size(), " and ", gram_b.size(), " entries are not two ", n, " x ", n,
               " matrices");
  });
  const std::vector<double> l = cholesky(gram_a, n);
  std::vector<double> half(size, 0.0), whole(size, 0.0);
  const auto at = [n](auto& m, int i, int j) -> decltype(auto) {
    return m[std::size_t(i) * std::size_t(n) + std::size_t(j)];
  };
  for (int i = 0; i < n; ++i)
    for (int k = 0; k < n; ++k)
      for (int j = 0; j <= k; ++j) at(half, i, j) += at(gram_b, i, k) * at(l, k, j);
  for (int k = 0; k < n; ++k)
    for (int i = 0; i <= k; ++i)
      for (int j = 0; j < n; ++j) at(whole, i, j) += at(l, k, i) * at(half, k, j);
  for (int i = 0; i < n; ++i)  // equal but for rounding
    for (int j = 0; j < i; ++j) at(whole, i, j) = at(whole, j, i) = (at(whole, i, j) + at(whole, j, i)) / 2;
  std::vector<double> values = symmetric_eigenvalues(whole, n);
  for (double& v : values) v = std::sqrt(std::max(v, 0.0));
  return values;
}

CircuitRanks head_circuits(std::span<const double> q, std::span<const double> k, std::span<const double> v,
                           std::span<const double> out, std::int64_t dim, std::int64_t heads) {
  const auto size = std::size_t(dim * dim);
  check(dim > 0 && heads > 0 && dim % heads == 0 && q.size() == size && k.size() == size && v.size() == size &&
            out.size() == size,
        Kind::shape, [&] {
          return cat("head_circuits: matrices of ", q.size(), ", ", k.size(), ", ", v.size(), " and ", out.size(),
                     " entries do not belong to ", heads, " heads of width ", dim);
        });
  const std::int64_t width = dim / heads;
  CircuitRanks ranks;
  for (std::int64_t h = 0; h < heads; ++h) {
    const auto rows = [&](std::span<const double> m) {
      return gram(m.subspan(std::size_t(h * width * dim)), width, dim, dim, 1);
    };
    const auto columns = gram(out.subspan(std::size_t(h * width)), width, 1, dim, dim);
    ranks.qk.push_back(effective_rank(product_singular_values(rows(q), rows(k), int(width))));
    ranks.ov.push_back(effective_rank(product_singular_values(columns, rows(v), int(width))));
  }
  return ranks;
}

}  // namespace eg
