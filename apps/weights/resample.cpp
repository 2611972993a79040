// apps/weights/resample.cpp - see resample.h.
#include "apps/weights/resample.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/error.h"

namespace eg {
namespace {

/// Row-major rows x cols.
struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> v;
  Matrix(std::int64_t r, std::int64_t c) : rows(r), cols(c), v(std::size_t(r * c), 0.0) {}
  Matrix(std::int64_t r, std::int64_t c, std::vector<double> values) : rows(r), cols(c), v(std::move(values)) {}
  double& at(std::int64_t i, std::int64_t j) { return v[std::size_t(i * cols + j)]; }
  double at(std::int64_t i, std::int64_t j) const { return v[std::size_t(i * cols + j)]; }
};

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.cols);
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t k = 0; k < a.cols; ++k)
      for (std::int64_t j = 0; j < b.cols; ++j) c.at(i, j) += a.at(i, k) * b.at(k, j);
  return c;
}

Matrix transposed(const Matrix& a) {
  Matrix t(a.cols, a.rows);
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t j = 0; j < a.cols; ++j) t.at(j, i) = a.at(i, j);
  return t;
}

/// X with A X = B for a symmetric positive definite A: elimination needs no pivoting there.
Matrix solve(Matrix a, Matrix b) {
  const std::int64_t n = a.rows;
  for (std::int64_t p = 0; p < n; ++p) {
    check(a.at(p, p) > 1e-12, Kind::usage,
          [&] { return cat("patch kernels cannot be resized: the resizing matrix has rank ", p, " of ", n); });
    for (std::int64_t i = p + 1; i < n; ++i) {
      const double f = a.at(i, p) / a.at(p, p);
      for (std::int64_t j = p; j < n; ++j) a.at(i, j) -= f * a.at(p, j);
      for (std::int64_t j = 0; j < b.cols; ++j) b.at(i, j) -= f * b.at(p, j);
    }
  }
  for (std::int64_t i = n; i-- > 0;)
    for (std::int64_t j = 0; j < b.cols; ++j) {
      for (std::int64_t k = i + 1; k < n; ++k) b.at(i, j) -= a.at(i, k) * b.at(k, j);
      b.at(i, j) /= a.at(i, i);
    }
  return b;
}

/// pinv(M^T) for M [to,from] of full rank: M (M^T M)^-1 when it grows, (M M^T)^-1 M when it shrinks.
Matrix pseudo_inverse_of_transpose(const Matrix& m) {
  const Matrix t = transposed(m);
  return m.rows >= m.cols ? transposed(solve(product(t, m), t)) : solve(product(m, t), m);
}

double keys(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  return x < 2.0 ? ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a : 0.0;
}

}  // namespace

std::vector<double> cubic_matrix(std::int64_t from, std::int64_t to) {
  check(from > 0 && to > 0, Kind::usage, [&] { return cat("a grid of ", from, " cannot be resampled to ", to); });
  const double scale = double(from) / double(to), wide = std::max(scale, 1.0), support = 2.0 * wide;
  Matrix m(to, from);
  for (std::int64_t i = 0; i < to; ++i) {
    const double center = scale * (double(i) + 0.5);
    const auto first = std::max<std::int64_t>(0, std::int64_t(center - support + 0.5));
    const auto end = std::min<std::int64_t>(from, std::int64_t(center + support + 0.5));
    double sum = 0.0;
    for (std::int64_t k = first; k < end; ++k) sum += m.at(i, k) = keys((double(k) - center + 0.5) / wide);
    for (std::int64_t k = first; k < end; ++k) m.at(i, k) /= sum;
  }
  return m.v;
}

std::vector<double> resample_positions(const std::vector<double>& grid, std::int64_t from, std::int64_t to,
                                       std::int64_t width) {
  check(std::int64_t(grid.size()) == from * from * width, Kind::internal, [&] {
    return cat("positions: ", grid.size(), " values are not ", from, " x ", from, " positions of width ", width);
  });
  const Matrix m(to, from, cubic_matrix(from, to));
  const Matrix rows = product(m, Matrix(from, from * width, grid));  // over the first axis
  std::vector<double> out;
  out.reserve(std::size_t(to * to * width));
  for (std::int64_t i = 0; i < to; ++i) {
    const auto row = rows.v.begin() + i * from * width;
    const Matrix line = product(m, Matrix(from, width, std::vector<double>(row, row + from * width)));
    out.insert(out.end(), line.v.begin(), line.v.end());
  }
  return out;
}

std::vector<double> resample_kernels(const std::vector<double>& kernels, std::int64_t from, std::int64_t to,
                                     std::int64_t count) {
  check(std::int64_t(kernels.size()) == count * from * from, Kind::internal,
        [&] { return cat("kernels: ", kernels.size(), " values are not ", count, " of ", from, " x ", from); });
  const Matrix p = pseudo_inverse_of_transpose(Matrix(to, from, cubic_matrix(from, to)));
  const Matrix pt = transposed(p);
  std::vector<double> out;
  out.reserve(std::size_t(count * to * to));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto one = kernels.begin() + i * from * from;
    const Matrix w = product(product(p, Matrix(from, from, std::vector<double>(one, one + from * from))), pt);
    out.insert(out.end(), w.v.begin(), w.v.end());
  }
  return out;
}

}  // namespace eg
