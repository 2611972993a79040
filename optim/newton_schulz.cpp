// optim/newton_schulz.cpp - see newton_schulz.h. Per iteration, with n the smaller and m the larger side: 4 n^2 m FLOP, and
// 2 n^3 more with a fifth-order term.
#include "optim/newton_schulz.h"

namespace eg {
namespace {

TensorView as_matrix(const Tensor& t, std::int64_t rows, std::int64_t cols) {
  return {t.data(), t.dtype(), {rows, cols}};
}

}  // namespace

NewtonSchulz::NewtonSchulz(Device device, OddPolynomial p, DType outside, DType inside, std::int64_t largest_matrix,
                           std::int64_t largest_smaller_side)
    : device_(device), cubic_(p.c == 0.0) {
  const std::int64_t n = largest_smaller_side;
  outside_ = Tensor::zeros({largest_matrix}, outside, device);
  if (inside != outside) inside_ = Tensor::zeros({largest_matrix}, inside, device);
  other_ = Tensor::zeros({largest_matrix}, inside, device);
  gram_ = Tensor::zeros({n * n}, inside, device);
  if (!cubic_) square_ = Tensor::zeros({n * n}, inside, device);
  factors_ = Tensor::from(std::vector<double>{p.a, p.b, p.c}, {3}, device.statistic(), device);
}

TensorView NewtonSchulz::input(std::int64_t rows, std::int64_t cols) const { return as_matrix(outside_, rows, cols); }

/// to = a X + B X (or X B) with B = b G + c G^2, G the Gram matrix of X = from.
void NewtonSchulz::step(const TensorView& x, const TensorView& to, Stream s) const {
  const bool tall = x.rows() > x.cols();
  const std::int64_t n = std::min(x.rows(), x.cols());
  const auto factor = [&](int i) { return factors_.slice(i, 1).view(); };
  const TensorView gram = as_matrix(gram_, n, n);
  TensorView polynomial = gram;
  EVERGRAD_CALL(device_, matmul, Matmul{.a = x, .b = x, .c = gram, .transpose_a = tall, .transpose_b = !tall}, s);
  if (cubic_) {
    EVERGRAD_CALL(device_, scale_by, ScaleBy{.x = gram, .factor = factor(1), .y = gram}, s);
  } else {
    polynomial = as_matrix(square_, n, n);
    EVERGRAD_CALL(device_, matmul, Matmul{.a = gram, .b = gram, .c = polynomial}, s);
    EVERGRAD_CALL(device_, scale_by, ScaleBy{.x = polynomial, .factor = factor(2), .y = polynomial}, s);
    EVERGRAD_CALL(device_, scale_by, ScaleBy{.x = gram, .factor = factor(1), .y = polynomial, .accumulate = true}, s);
  }
  EVERGRAD_CALL(device_, scale_by, ScaleBy{.x = x, .factor = factor(0), .y = to}, s);
  EVERGRAD_CALL(device_, matmul,
                Matmul{.a = tall ? x : polynomial, .b = tall ? polynomial : x, .c = to, .accumulate = true}, s);
}

TensorView NewtonSchulz::run(std::int64_t rows, std::int64_t cols, int iterations, Stream s) const {
  const TensorView outside = input(rows, cols);
  TensorView from = outside, to = as_matrix(other_, rows, cols);
  if (inside_) {
    from = as_matrix(inside_, rows, cols);
    EVERGRAD_CALL(device_, cast, Cast{.from = outside, .to = from}, s);
  }
  for (int i = 1; i <= iterations; ++i) {
    // The last products go into the caller's type: what is summed in fp32 is then rounded no more.
    if (i == iterations && inside_) to = outside;
    step(from, to, s);
    std::swap(from, to);
  }
  return from;
}

std::size_t NewtonSchulz::workspace_bytes() const {
  return outside_.bytes() + (inside_ ? inside_.bytes() : 0) + other_.bytes() + gram_.bytes() +
         (cubic_ ? 0 : square_.bytes());
}

}  // namespace eg
