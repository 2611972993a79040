// apps/diagnosis/circuits.h - what an attention head can do at all: the products of its two pairs of matrices, through
// which it compares tokens (W_q^T W_k) and moves their content (W_o W_v); Elhage et al. 2021, methods.md D.1.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace eg {

/// Singular values of a b^T, descending, from the Gram matrices a^T a and b^T b (row-major n x n, n small): with
/// a^T a = L L^T they are the roots of the eigenvalues of L^T (b^T b) L. What lies below 1e-8 of the largest carries no
/// digits. Throws Error{shape|numeric}.
std::vector<double> product_singular_values(std::span<const double> gram_a, std::span<const double> gram_b, int n);

/// By head: effective ranks of the d x d circuits, at most d / heads.
struct CircuitRanks {
  std::vector<double> qk, ov;
};
/// q, k, v: [dim, dim], a head's rows together; out: [dim, dim], a head's columns together (all out x in). Throws
/// Error{shape} when the sizes do not fit.
CircuitRanks head_circuits(std::span<const double> q, std::span<const double> k, std::span<const double> v,
                           std::span<const double> out, std::int64_t dim, std::int64_t heads);

}  // namespace eg
