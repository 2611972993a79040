// tests/cases/pieces.cpp - definitions that several oracles share.
#include <cmath>

#include "tests/autograd/suite.h"

namespace eg::test {

Host host(const Shape& shape) { return {shape, std::vector<double>(std::size_t(shape.size()))}; }

double gelu_value(double x, bool tanh_form) {
  if (tanh_form) return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
  return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
}

Host linear_value(const Host& x, const Host& w, const Host& b) {
  Shape shape = x.shape;
  shape[-1] = w.shape[0];
  Host y = host(shape);
  const auto in = std::size_t(w.shape[1]), out = std::size_t(w.shape[0]);
  for (std::size_t r = 0; r < std::size_t(x.shape.rows()); ++r)
    for (std::size_t o = 0; o < out; ++o) {
      double sum = b ? b.v[o] : 0.0;
      for (std::size_t i = 0; i < in; ++i) sum += x.v[r * in + i] * w.v[o * in + i];
      y.v[r * out + o] = sum;
    }
  return y;
}

Host layer_norm_value(const Host& x, const Host& gamma, const Host& beta, double eps) {
  Host y = host(x.shape);
  const auto c = std::size_t(x.shape.cols());
  for (std::size_t r = 0; r < std::size_t(x.shape.rows()); ++r) {
    double mean = 0, var = 0;
    for (std::size_t i = 0; i < c; ++i) mean += x.v[r * c + i] / double(c);
    for (std::size_t i = 0; i < c; ++i) var += std::pow(x.v[r * c + i] - mean, 2) / double(c);
    for (std::size_t i = 0; i < c; ++i)
      y.v[r * c + i] = (x.v[r * c + i] - mean) / std::sqrt(var + eps) * gamma.v[i] + beta.v[i];
  }
  return y;
}

}  // namespace eg::test
