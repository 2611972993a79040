// apps/diagnosis/spectrum.h - the rank family of methods.md D.1, from singular values of a feature or weight matrix.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace eg {

/// Eigenvalues of a symmetric matrix (row-major n x n, destroyed), in descending order. Householder reduction to
/// tridiagonal form, then QL with implicit shifts (Golub & Van Loan, Matrix Computations, chapter 8); about 4/3 n^3
/// flops. Throws Error{numeric} when an entry is not finite.
std::vector<double> symmetric_eigenvalues(std::span<double> matrix, int n);

/// Singular values of a row-major rows x cols matrix in descending order, through the Gram matrix of the smaller side
/// in double. Values below sqrt(2^-52) of the largest carry no digits.
std::vector<double> singular_values(std::span<const double> matrix, std::int64_t rows, std::int64_t cols);

/// exp(-sum p ln p) with p = s / sum(s) (Roy & Vetterli 2007); 0 for an all-zero spectrum.
double effective_rank(std::span<const double> singular);
/// |A|_F^2 / |A|_2^2.
double stable_rank(std::span<const double> singular);
/// (sum s^2)^2 / sum s^4.
double participation_ratio(std::span<const double> singular);
/// Smallest k whose k largest values hold 1 - delta of sum(s). Some repositories call this "stable rank".
int srank(std::span<const double> singular, double delta = 0.01);
/// Smallest k whose k largest values hold `share` of sum(s^2).
int energy_rank(std::span<const double> singular, double share = 0.99);

/// Values above max(rows, cols) x eps x the largest, eps being that of the precision in which the matrix was computed
/// (default: fp32); with fewer it cannot be told from a matrix of lower rank.
int numerical_rank(std::span<const double> singular, std::int64_t rows, std::int64_t cols, double eps = 0x1p-23);

}  // namespace eg
