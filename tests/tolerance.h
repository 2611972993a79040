// tests/tolerance.h - every error that a test may forgive, with its derivation. Nothing else may invent one.
//
// u(t) is the unit roundoff of a type (engine/dtype.h): 2^-53 f64, 2^-24 f32, 2^-8 bf16. A stored result costs one
// rounding, u(out) |result|; what it was computed from costs what the functions below say, in the precision `acc` of
// the arithmetic. Copies, permutations, masks, random bits and the same call twice cost nothing: they are compared bit
// for bit.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "engine/kernels.h"

namespace eg::test {

/// One rounding of a result that is stored as `out`.
inline double stored(double result, DType out) { return unit_roundoff(out) * std::abs(result); }

/// Elementwise results of at most three dependent operations: each rounds a number not larger than the inputs or the
/// result (the factor 4 leaves room for one constant that was rounded as well).
inline double elementwise_error(double largest_input, double result, DType acc = DType::f32) {
  return 4.0 * unit_roundoff(acc) * std::max(std::abs(largest_input), std::abs(result));
}
inline double elementwise_bound(double largest_input, double result, DType out) {
  return elementwise_error(largest_input, result) + stored(result, out);
}

/// A sum of k terms in any order. Rounding errors of different sign make a random walk, so the error grows like sqrt(k)
/// and not like k; measured for random sums up to k = 16384, it stays below 0.86 sqrt(k) u times the sum of absolute
/// terms. Products inside the sum add one rounding a term, which the factor 4 also covers.
inline double sum_error(std::int64_t k, double sum_of_abs, DType acc = DType::f32) {
  return 4.0 * std::sqrt(double(std::max<std::int64_t>(1, k))) * unit_roundoff(acc) * sum_of_abs;
}
inline double sum_bound(std::int64_t k, double sum_of_abs, double result, DType acc, DType out) {
  return sum_error(k, sum_of_abs, acc) + stored(result, out);
}

/// A product sum_j p_j v_j whose factor p was rounded to `intermediate` on the way (attention's probabilities, and dS
/// in its backward): independent roundings of relative size u make an error of standard deviation below u sqrt(sum (p
/// v)^2); four of them.
inline double rounded_factor_error(double sum_of_squares, DType intermediate) {
  return 4.0 * unit_roundoff(intermediate) * std::sqrt(sum_of_squares);
}

/// e^x and tanh x of the vector kernels, as a share of the result, in units of u(f32) = half an ulp: 1.1 and 2.5 ulp,
/// their largest errors over all of fp32 (engine/cpu/simd.h; test_functions.cpp samples them).
inline constexpr double kExpError = 2.2 * 0x1p-24, kTanhError = 5.0 * 0x1p-24;
/// Of a GPU's exponentials, likewise as a share of the result: 2^-22 is what the PTX ISA allows ex2.approx, which the
/// tensor-core kernels of attention call, and the 2 ulp (an ulp is at most 2^-23 of a number) of expf and exp2f in the
/// tables of the CUDA programming guide, which the other kernels call. What rounding the argument costs is counted
/// where the argument is known.
inline constexpr double kDeviceExpError = 4.0 * 0x1p-24;
/// Of GELU and its derivative: absolute, per max(1, |x|), for the same reason.
inline double gelu_error(GeluKind kind, double x) {
  return (kind == GeluKind::erf ? 1.2e-7 : 1.5e-7) * std::max(1.0, std::abs(x));
}
inline double gelu_gradient_error(GeluKind kind, double x) {
  return (kind == GeluKind::erf ? 2.7e-7 : 4.0e-7) * std::max(1.0, std::abs(x));
}
/// |gelu'| and |gelu''| stay below these for both forms: what an error of the argument is multiplied by.
inline constexpr double kGeluSlope = 1.13, kGeluCurvature = 0.80;

/// Numbers below the smallest normal one may be lost where a kernel flushes them to zero (2^-126 in f32 and bf16), and
/// sums of a few such stay below this.
inline constexpr double kUnderflow = 1e-36;

/// A whole model, against another implementation of it: error of a layer's gradient over its norm, and of the loss over
/// itself (methods agree on these; the key bias, whose gradient is zero but for rounding, is left out). fp32 carries 24
/// bits through about 10^2 roundings in a row, which leaves 10^-5; double has 29 bits more, of which the bound gives 12
/// to the different summation orders of tiny layers.
inline constexpr double kGradientAgreement = 1e-5, kLossAgreement = 1e-6;
inline constexpr double kGradientAgreementInDouble = 1e-10, kLossAgreementInDouble = 1e-12;

/// Norm-wise agreement of an op with the reference. A backward-stable kernel gives the exact result of inputs rounded
/// in the working precision, so the reference itself, run on inputs times 1 +- u, measures how far that may lie
/// (`sensitivity`, the largest of several draws). 4 sqrt(k) covers sums of k terms in fp32; bf16 rounds the stored
/// intermediates, of which no op has more than four in a row, and accumulates in fp32. Storing costs u of the result.
inline double backward_stable_bound(double sensitivity, double size, std::int64_t k, DType compute, DType out) {
  const double factor = compute == DType::bf16 ? 4.0 : 4.0 * std::sqrt(double(k));
  return factor * sensitivity + 2.0 * unit_roundoff(out) * size + 1e-30;
}
/// Two trainings of one model on different devices, step for step (they start from the same weights and see the same
/// batches). Each step turns a gradient that is off by kGradientAgreement into weights that are off by
/// lr kGradientAgreement |update|, and the loss surface then makes differences grow. How fast is not guessed but
/// measured: the same training on one device, from initial weights w (1 + kDriftSeed n), n normal, differs from the
/// undisturbed one by D(t) in the loss of step t. All that rounding injects over s steps with lr |update| <= 0.1 |w|
/// per step is at most 0.1 s kGradientAgreement |w|, which for s <= 100 is at most kDriftSeed |w|: so the drift at step
/// t may reach the largest D so far. The loss of one step itself carries kLossAgreement. The weights as one vector begin
/// kDriftSeed |w| apart and may drift as far as those of the disturbed training have, or have been.
inline constexpr double kDriftSeed = 1e-4;
inline double drift_bound(double largest_disturbance, double loss) {
  return largest_disturbance + kLossAgreement * (1.0 + std::abs(loss));
}
/// The same for two trainings in double, whose gradients differ by kGradientAgreementInDouble: here for other numbers of
/// ranks, which add up the same images' gradients in another order.
inline constexpr double kDriftSeedInDouble = 10.0 * kGradientAgreementInDouble;
inline double drift_bound_in_double(double largest_disturbance, double loss) {
  return largest_disturbance + kLossAgreementInDouble * (1.0 + std::abs(loss));
}
/// Two orders of the same sums in double: 2^-53 times 10^5, for lengths up to 10^4 and conditions up to 10^3.
inline constexpr double kSameInDouble = 1e-11;

}  // namespace eg::test
