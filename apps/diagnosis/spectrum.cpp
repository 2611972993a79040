// apps/diagnosis/spectrum.cpp - eigenvalues of symmetric matrices and the rank measures built on them.
#include "apps/diagnosis/spectrum.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "engine/error.h"
#include "engine/parallel.h"

namespace eg {
namespace {

/// Reduces a to tridiagonal form by n - 2 Householder reflections H = I - 2 v v^T, applied from both sides. Only the
/// values are wanted, so the reflections are not kept.
void tridiagonalise(std::span<double> a, int n, std::vector<double>& diagonal, std::vector<double>& below) {
  const auto at = [&](int i, int j) -> double& { return a[std::size_t(i) * std::size_t(n) + std::size_t(j)]; };
  std::vector<double> v(static_cast<std::size_t>(n)), p(static_cast<std::size_t>(n));
  for (int k = 0; k + 2 < n; ++k) {
    double norm_sq = 0.0;
    for (int i = k + 1; i < n; ++i) norm_sq += at(i, k) * at(i, k);
    const double norm = std::sqrt(norm_sq);
    if (norm == 0.0) continue;
    // v points from the column to its image; the sign avoids cancellation in its first entry.
    const double head = at(k + 1, k), image = head > 0.0 ? -norm : norm;
    const double scale = 1.0 / std::sqrt(2.0 * norm * (norm + std::abs(head)));
    for (int i = k + 1; i < n; ++i) v[std::size_t(i)] = at(i, k) * scale;
    v[std::size_t(k + 1)] = (head - image) * scale;
    // p = 2 A v, q = p - (v.p) v;  A <- A - v q^T - q v^T.
    parallel_for(n - k - 1, 64, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      for (std::int64_t i = begin + k + 1; i < end + k + 1; ++i) {
        double sum = 0.0;
        for (int j = k + 1; j < n; ++j) sum += at(int(i), j) * v[std::size_t(j)];
        p[std::size_t(i)] = 2.0 * sum;
      }
    });
    double overlap = 0.0;
    for (int i = k + 1; i < n; ++i) overlap += v[std::size_t(i)] * p[std::size_t(i)];
    for (int i = k + 1; i < n; ++i) p[std::size_t(i)] -= overlap * v[std::size_t(i)];
    parallel_for(n - k - 1, 64, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      for (std::int64_t i = begin + k + 1; i < end + k + 1; ++i)
        for (int j = k + 1; j < n; ++j)
          at(int(i), j) -= v[std::size_t(i)] * p[std::size_t(j)] + p[std::size_t(i)] * v[std::size_t(j)];
    });
    at(k + 1, k) = image;
  }
  for (int i = 0; i < n; ++i) diagonal[std::size_t(i)] = at(i, i);
  for (int i = 0; i + 1 < n; ++i) below[std::size_t(i)] = at(i + 1, i);
}

/// QL iteration with Wilkinson's shift on a tridiagonal matrix; on return `diagonal` holds the eigenvalues.
void implicit_ql(std::vector<double>& diagonal, std::vector<double>& below) {
  const int n = int(diagonal.size());
  const auto d = [&](int i) -> double& { return diagonal[std::size_t(i)]; };
  const auto e = [&](int i) -> double& { return below[std::size_t(i)]; };
  for (int l = 0; l < n; ++l) {
    for (int iteration = 0;; ++iteration) {
      int m = l;
      while (m + 1 < n && std::abs(e(m)) > 0x1p-52 * (std::abs(d(m)) + std::abs(d(m + 1)))) ++m;
      if (m == l) break;
      check(iteration < 100, Kind::numeric,
            [] { return std::string("eigenvalues: QL did not converge in 100 sweeps"); });
      double shift = (d(l + 1) - d(l)) / (2.0 * e(l));
      shift = d(m) - d(l) + e(l) / (shift + std::copysign(std::hypot(shift, 1.0), shift));
      double sine = 1.0, cosine = 1.0, carried = 0.0;
      int i = m - 1;
      for (; i >= l; --i) {  // chase the bulge from the bottom of the block to its top with Givens rotations
        const double f = sine * e(i), b = cosine * e(i);
        const double r = std::hypot(f, shift);
        e(i + 1) = r;
        if (r == 0.0) {
          d(i + 1) -= carried;
          e(m) = 0.0;
          break;
        }
        sine = f / r, cosine = shift / r;
        const double g = d(i + 1) - carried, t = (d(i) - g) * sine + 2.0 * cosine * b;
        carried = sine * t;
        d(i + 1) = g + carried;
        shift = cosine * t - b;
      }
      if (i >= l) continue;
      d(l) -= carried;
      e(l) = shift;
      e(m) = 0.0;
    }
  }
}

}  // namespace

std::vector<double> symmetric_eigenvalues(std::span<double> matrix, int n) {
  check(matrix.size() == std::size_t(n) * std::size_t(n), Kind::shape,
        [&] { return cat("symmetric_eigenvalues: ", matrix.size(), " entries are not a ", n, " x ", n, " matrix"); });
  for (const double x : matrix)
    check(std::isfinite(x), Kind::numeric,
          [] { return std::string("symmetric_eigenvalues: the matrix has a non-finite entry"); });
  std::vector<double> diagonal(static_cast<std::size_t>(n)), below(static_cast<std::size_t>(n) + 1);
  if (n == 0) return diagonal;
  tridiagonalise(matrix, n, diagonal, below);
  implicit_ql(diagonal, below);
  std::sort(diagonal.begin(), diagonal.end(), std::greater<>());
  return diagonal;
}

std::vector<double> singular_values(std::span<const double> matrix, std::int64_t rows, std::int64_t cols) {
  check(std::int64_t(matrix.size()) == rows * cols, Kind::shape,
        [&] { return cat("singular_values: ", matrix.size(), " entries are not ", rows, " x ", cols); });
  const bool tall = rows >= cols;
  const std::int64_t n = tall ? cols : rows, depth = tall ? rows : cols;
  // side[i] is column i (tall) or row i, contiguous, so that every Gram entry is one dot product.
  std::vector<double> side(matrix.begin(), matrix.end());
  if (tall)
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) side[std::size_t(c * rows + r)] = matrix[std::size_t(r * cols + c)];
  std::vector<double> gram(static_cast<std::size_t>(n * n));
  parallel_for(n, 4, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        const double *x = side.data() + i * depth, *y = side.data() + j * depth;
        double partial[4] = {};
        std::int64_t k = 0;
        for (; k + 4 <= depth; k += 4)
          for (int lane = 0; lane < 4; ++lane) partial[lane] += x[k + lane] * y[k + lane];
        for (; k < depth; ++k) partial[0] += x[k] * y[k];
        gram[std::size_t(i * n + j)] = (partial[0] + partial[1]) + (partial[2] + partial[3]);
      }
  });
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < i; ++j) gram[std::size_t(j * n + i)] = gram[std::size_t(i * n + j)];
  std::vector<double> values = symmetric_eigenvalues(gram, int(n));
  for (double& v : values) v = std::sqrt(std::max(v, 0.0));
  return values;
}

double effective_rank(std::span<const double> s) {
  const double sum = std::accumulate(s.begin(), s.end(), 0.0);
  if (!(sum > 0.0)) return 0.0;
  double entropy = 0.0;
  for (const double x : s)
    if (x > 0.0) entropy -= x / sum * std::log(x / sum);
  return std::exp(entropy);
}

double stable_rank(std::span<const double> s) {
  if (s.empty() || !(s[0] > 0.0)) return 0.0;
  double energy = 0.0;
  for (const double x : s) energy += x * x;
  return energy / (s[0] * s[0]);
}

double participation_ratio(std::span<const double> s) {
  double two = 0.0, four = 0.0;
  for (const double x : s) two += x * x, four += x * x * x * x;
  return four > 0.0 ? two * two / four : 0.0;
}

namespace {
int smallest_prefix(std::span<const double> s, double share, int power) {
  double total = 0.0, running = 0.0;
  for (const double x : s) total += power == 1 ? x : x * x;
  if (!(total > 0.0)) return 0;
  for (std::size_t k = 0; k < s.size(); ++k) {
    running += power == 1 ? s[k] : s[k] * s[k];
    if (running >= share * total) return int(k) + 1;
  }
  return int(s.size());
}
}  // namespace

int numerical_rank(std::span<const double> s, std::int64_t rows, std::int64_t cols, double eps) {
  if (s.empty() || !(s[0] > 0.0)) return 0;
  const double least = double(std::max(rows, cols)) * eps * s[0];
  return int(std::count_if(s.begin(), s.end(), [&](double x) { return x > least; }));
}

int srank(std::span<const double> s, double delta) { return smallest_prefix(s, 1.0 - delta, 1); }
int energy_rank(std::span<const double> s, double share) { return smallest_prefix(s, share, 2); }

}  // namespace eg
