// apps/diagnosis/similarity.h - centred kernel alignment of two sets of features (Kornblith et al. 2019,
// arXiv:1905.00414; methods.md D.6).
#pragma once
#include <cstdint>
#include <span>

namespace eg {

/// Linear CKA of x [n, dx] and y [n, dy], rows being the same n samples. The plain estimator: strongly biased upwards
/// unless n is much larger than the widths. 0 where a side is constant.
double cka_biased(std::span<const double> x, std::span<const double> y, std::int64_t n);
/// The unbiased estimator (Song et al. 2012; Nguyen et al. 2021, arXiv:2010.15327), which needs n >= 4; a little below 0
/// at times. 1 for equal features, whatever their scale and rotation.
double cka(std::span<const double> x, std::span<const double> y, std::int64_t n);

}  // namespace eg
