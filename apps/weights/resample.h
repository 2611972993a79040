// apps/weights/resample.h - learned arrays for another grid: position embeddings and patch kernels. Both as timm does it
// (resample_abs_pos_embed, resample_patch_embed), computed in double.
#pragma once
#include <cstdint>
#include <vector>

namespace eg {

/// The weights of cubic interpolation from `from` samples to `to`, row i for output i, row-major [to,from]: Keys' kernel
/// with a = -0.5 (Keys 1981), samples at half-integers, widened by from/to where that is above 1 so that nothing
/// aliases; each row sums to 1. What PyTorch calls bicubic with antialias=True.
std::vector<double> cubic_matrix(std::int64_t from, std::int64_t to);

/// Positions on another square grid: [from * from, width] -> [to * to, width], row by row.
std::vector<double> resample_positions(const std::vector<double>& grid, std::int64_t from, std::int64_t to,
                                       std::int64_t width);

/// Kernels for another patch size: [count, from, from] -> [count, to, to]. FlexiViT's rule (Beyer et al. 2023,
/// arXiv:2212.08013): with B the matrix that resizes a patch, the new kernel is pinv(B^T) w, so that it gives of a resized
/// patch what the old one gives of the patch (exactly when patches grow, in least squares when they shrink). B is the
/// Kronecker square of the matrix M of one axis, and so is its pseudo-inverse: W' = P W P^T with P = pinv(M^T).
std::vector<double> resample_kernels(const std::vector<double>& kernels, std::int64_t from, std::int64_t to,
                                     std::int64_t count);

}  // namespace eg
