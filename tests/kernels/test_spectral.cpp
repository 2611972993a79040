// tests/kernels/test_spectral.cpp - power iteration and the penalty on the largest singular value.
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"spectral_penalty"};
using Vector = std::vector<double>;
const double u = unit_roundoff(DType::f32);

const std::vector<std::pair<int, int>> kShapes{{1, 1}, {1, 33}, {31, 1}, {33, 65}, {197, 40}, {64, 300}};

double length(const Vector& x) {
  double sum = 0.0;
  for (const double a : x) sum += a * a;
  return std::sqrt(sum);
}

struct Case {
  std::int64_t rows, columns;
  int k;
  double strength, target;
  DType gradient;
};

/// How far each output may be off: every sum by its rounding, and by the error of the vector that it is made of.
Values allowed(const Case& c, const Values& in, const Values& exact) {
  const auto rows = std::size_t(c.rows), columns = std::size_t(c.columns);
  const Vector &w = in.at("weight"), &start = in.at("u"), &v = exact.at("v"), &next = exact.at("next");
  Vector raw(columns), raw_error(columns), v_error(columns), y_error(rows), next_error(rows);
  for (std::size_t j = 0; j < columns; ++j) {
    double terms = 0.0;
    for (std::size_t r = 0; r < rows; ++r)
      terms += std::abs(w[r * columns + j] * start[r]), raw[j] += w[r * columns + j] * start[r];
    raw_error[j] = sum_error(c.rows, terms);
  }
  const double raw_length = length(raw), sigma = exact.at("sigma")[0];
  if (raw_length == 0.0 || sigma == 0.0) return {};
  // x / |x| is off by the error of x over |x|, by x times the relative error of |x|, and by its own rounding.
  for (std::size_t j = 0; j < columns; ++j)
    v_error[j] = raw_error[j] / raw_length + std::abs(v[j]) * (length(raw_error) / raw_length + 4.0 * u);
  for (std::size_t r = 0; r < rows; ++r) {
    double terms = 0.0, moved = 0.0;
    for (std::size_t j = 0; j < columns; ++j)
      terms += std::abs(w[r * columns + j] * v[j]), moved += std::abs(w[r * columns + j]) * v_error[j];
    y_error[r] = sum_error(c.columns, terms) + moved;
  }
  const double sigma_error = length(y_error) + 4.0 * u * sigma;
  for (std::size_t r = 0; r < rows; ++r)
    next_error[r] = y_error[r] / sigma + std::abs(next[r]) * (sigma_error / sigma + 4.0 * u);
  const double k = c.k, slope = 2.0 * c.strength * k * std::pow(sigma, k - 1) * (std::pow(sigma, k) - c.target);
  const double slope_error =
      2.0 * c.strength * k *
          ((2.0 * k - 1.0) * std::pow(sigma, 2.0 * k - 2.0) + c.target * (k - 1.0) * std::pow(sigma, k - 2.0)) *
          sigma_error +
      8.0 * u * (std::abs(slope) + 2.0 * c.strength * k * std::pow(sigma, k - 1) * c.target);
  Vector gradient(rows * columns);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t j = 0; j < columns; ++j) {
      const double a = std::abs(next[r]), b = std::abs(v[j]);
      gradient[r * columns + j] = slope_error * a * b + std::abs(slope) * (next_error[r] * b + a * v_error[j]) +
                                  4.0 * u * (std::abs(slope) * a * b + std::abs(in.at("grad")[r * columns + j]));
    }
  return {{"v", v_error}, {"next", next_error}, {"sigma", {sigma_error}}, {"grad", gradient}};
}

}  // namespace

TEST_CASE("spectral_penalty: agrees with the reference for every shape, power and target") {
  for (const auto& [rows, columns] : kShapes)
    for (const int k : {1, 2, 3})
      for (const double target : {0.0, 1.0})
        for (const bool narrow : {false, true}) {
          const Case c{rows, columns, k, 0.01, target, gradient_type(narrow)};
          EVERGRAD_CONFORMS(
              spectral_penalty, SpectralPenalty, cat(rows, " x ", columns, " k ", k, " target ", target), DType::f32,
              [&](Arguments& a) {
                SpectralPenalty p;
                p.grad = a.typed("grad", c.gradient, {c.rows, c.columns}, normal(1.0), Use::added);
                p.weight = a.stat("weight", {c.rows, c.columns}, normal(0.2, 0.1));
                p.u = a.stat("u", {c.rows}, between(0.1, 0.2));
                p.next = a.out("next", DType::f32, {c.rows}), p.v = a.out("v", DType::f32, {c.columns});
                p.sigma = a.out("sigma", DType::f32, {1});
                p.strength = c.strength, p.target = c.target, p.k = c.k;
                return p;
              },
              [&](const Values& in, const Values& exact) { return allowed(c, in, exact); });
        }
}

TEST_CASE("spectral_penalty: a matrix of zeros adds nothing to the gradient, and u goes on as it was") {
  EVERGRAD_CONFORMS(
      spectral_penalty, SpectralPenalty, "zeros", DType::f32,
      [&](Arguments& a) {
        SpectralPenalty p;
        p.grad = a.typed("grad", DType::f32, {5, 7}, normal(1.0), Use::added);
        p.weight = a.stat("weight", {5, 7}, constant(0.0));
        p.u = a.stat("u", {5}), p.next = a.out("next", DType::f32, {5}), p.v = a.out("v", DType::f32, {7});
        p.sigma = a.out("sigma", DType::f32, {1}), p.strength = 0.5;
        return p;
      },
      equal());
}

}  // namespace eg::test
