// engine/reference/matmul.cpp - the matrix product with what may follow it in the same pass.
//
//   s = op(a) op(b),   op(a) [M,K],  op(b) [K,N],  op = as stored or transposed
//
//   none          c (+)= s
//   bias          c (+)= s + bias                           bias [N]
//   bias_gelu     aux = s + bias,   c (+)= gelu(aux)        aux [M,N] is what dgelu wants later
//   dgelu         c (+)= s gelu'(aux);   bias_grad [N] (+)= column sums of s gelu'(aux)
//   bias_grad_a   c (+)= s;   bias_grad [M] (+)= column sums of a as stored [K,M]
//
// For a layer y = x w^T + b with upstream gradient dy these are: y (a = x, b = w transposed), dx = dy w (none), and
// dw = dy^T x with db beside it (bias_grad_a, a = dy transposed). Leading axes of a and c count as rows.
#include <vector>

#include "engine/reference/gelu.h"
#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {
namespace {

/// Element (i, j) of op(x).
double element(const TensorView& x, bool transposed, std::int64_t i, std::int64_t j) {
  return get(x, transposed ? j * x.cols() + i : i * x.cols() + j);
}

/// What goes into c for the product s at element `at` of column j; writes aux on the way.
double apply_epilogue(const Matmul& m, double s, std::int64_t at, std::int64_t j) {
  switch (m.epilogue) {
    case Epilogue::none:
    case Epilogue::bias_grad_a: return s;
    case Epilogue::bias: return s + get(m.bias, j);
    case Epilogue::bias_gelu: {
      const double z = s + get(m.bias, j);
      put(m.aux, at, z);
      return gelu(m.gelu, z);
    }
    case Epilogue::dgelu: return s * gelu_gradient(m.gelu, get(m.aux, at));
  }
  return s;
}

}  // namespace

void matmul(const Matmul& m, Stream) {
  const std::int64_t M = m.c.rows(), N = m.c.cols(), K = m.transpose_a ? m.a.rows() : m.a.cols();
  std::vector<double> column_sums(std::size_t(N), 0.0);
  for (std::int64_t i = 0; i < M; ++i)
    for (std::int64_t j = 0; j < N; ++j) {
      double s = 0.0;
      for (std::int64_t k = 0; k < K; ++k) s += element(m.a, m.transpose_a, i, k) * element(m.b, m.transpose_b, k, j);
      const double value = apply_epilogue(m, s, i * N + j, j);
      column_sums[std::size_t(j)] += value;
      put(m.c, i * N + j, value, m.accumulate);
    }
  if (m.epilogue == Epilogue::dgelu && m.bias_grad)
    for (std::int64_t j = 0; j < N; ++j) put(m.bias_grad, j, column_sums[std::size_t(j)], m.accumulate_bias_grad);
  if (m.epilogue == Epilogue::bias_grad_a && m.bias_grad)
    for (std::int64_t i = 0; i < M; ++i) {
      double sum = 0.0;
      for (std::int64_t k = 0; k < K; ++k) sum += element(m.a, m.transpose_a, i, k);
      put(m.bias_grad, i, sum, m.accumulate_bias_grad);
    }
}

}  // namespace eg::reference
