// apps/diagnosis/linear_probe.h - what a linear classifier can read off frozen features: the part of a task's knowledge
// that the body of the network holds, whatever its head does (methods.md D.6).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace eg {

/// Features [images, width], row-major, and the class of each image, 0 .. classes - 1.
struct LabelledFeatures {
  std::vector<double> x;
  std::vector<std::int32_t> labels;
};

/// Share of `test` that a ridge regression onto one-hot classes, fitted to `train`, classifies correctly; the first of
/// equal scores wins. Closed form: W = (Xc^T Xc + lambda I)^-1 Xc^T Yc with centred X and Y, lambda = strength x the mean
/// diagonal entry of Xc^T Xc; features that are all alike (lambda 0) leave the most frequent class. Throws Error{shape}
/// for sizes that do not fit, Error{usage} for labels out of range or no image, Error{numeric} for a non-finite feature.
double ridge_accuracy(const LabelledFeatures& train, const LabelledFeatures& test, std::int64_t width, int classes,
                      double strength = 1e-3);

}  // namespace eg
