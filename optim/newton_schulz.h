// optim/newton_schulz.h - odd polynomials of a matrix through its singular values: the iteration behind Muon and FIRE.
//
// X = U S V^T becomes U p(S) V^T without a decomposition, since X X^T X = U S^3 V^T. Iterated polynomials that push every
// singular value in (0, 1] to 1 make a matrix orthogonal in nothing but matrix products.
#pragma once
#include "engine/kernels.h"

namespace eg {

/// X <- a X + b (X X^T) X + c (X X^T)^2 X.
struct OddPolynomial {
  double a, b, c;
};

/// Applies a polynomial to matrices of up to a given size, in memory that is allocated once. The Gram matrix is that of
/// the smaller side (a tall X uses X^T X), so a matrix and its transpose cost the same and give transposed results.
class NewtonSchulz {
 public:
  /// outside: type of input and result, f32 (f64 on reference). inside: type of the products, `outside` or bf16.
  NewtonSchulz(Device device, OddPolynomial polynomial, DType outside, DType inside, std::int64_t largest_matrix,
               std::int64_t largest_smaller_side);
  /// Where the caller puts X [rows, cols], scaled to a Frobenius norm of at most 1.
  TensorView input(std::int64_t rows, std::int64_t cols) const;
  /// Only enqueues. The result [rows, cols], valid until the next call; iterations >= 1.
  TensorView run(std::int64_t rows, std::int64_t cols, int iterations, Stream stream) const;
  std::size_t workspace_bytes() const;

 private:
  void step(const TensorView& from, const TensorView& to, Stream stream) const;

  Device device_;
  bool cubic_;
  Tensor outside_, inside_, other_;  // inside_ only where its type is another
  Tensor gram_, square_, factors_;
};

}  // namespace eg
