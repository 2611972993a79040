// tests/kernels/test_functions.cpp - exp, tanh, GELU and its gradient of the vector kernels against double, on every
// instruction set: the accuracy that simd.h states and that the bounds of tolerance.h are made of.
#include <doctest/doctest.h>

#include <cfloat>

#include "engine/cpu/isa.h"
#include "engine/reference/gelu.h"
#include "tests/kernels/conform.h"

#define EVERGRAD_KERNEL_BODY "tests/kernels/functions.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::test {
namespace {

/// Every 4099th float (a prime, so that no exponent sees the same digits), both signs, and the edges of exp.
std::vector<float> samples() {
  std::vector<float> all{0.0f, -0.0f, 88.72f, 88.73f, 89.5f, -87.34f, -103.9f, -104.1f, -105.0f, HUGE_VALF, -HUGE_VALF};
  for (std::uint32_t bits = 0; bits < 0x7f800000u; bits += 4099) {
    all.push_back(__builtin_bit_cast(float, bits));
    all.push_back(__builtin_bit_cast(float, bits | 0x80000000u));
  }
  // Most of these lie outside the range where anything happens; walk through that range evenly as well.
  for (int i = -400000; i <= 400000; ++i) all.push_back(float(i) * 3.1e-4f);
  return all;
}

using Apply = void (*)(const float*, float*, std::int64_t);

/// Calls f(name of the set, values) with the results of all samples on every instruction set.
template <class F>
void on_every_set(int function, const std::vector<float>& x, const F& f) {
  const cpu::Isa before = cpu::isa();
  for (const cpu::Isa isa : instruction_sets()) {
    cpu::use_isa(isa);
    std::vector<float> y(x.size());
    const auto n = std::int64_t(x.size());
    {
      using namespace cpu;
      EVERGRAD_DISPATCH(apply_function, function, x.data(), y.data(), n);
    }
    CAPTURE(std::string(cpu::to_string(isa)));
    f(isa, y);
  }
  cpu::use_isa(before);
}

/// Largest of |y - wanted| / unit, over samples for which unit(x, wanted) > 0.
template <class Wanted, class Unit>
double worst(const std::vector<float>& x, const std::vector<float>& y, const Wanted& wanted, const Unit& unit) {
  double largest = 0.0;
  float at = 0.0f;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double w = wanted(double(x[i])), e = std::abs(double(y[i]) - w) / unit(double(x[i]), w);
    if (double(y[i]) == w || e <= largest) continue;
    largest = e, at = x[i];
  }
  INFO("worst at " << at);
  CHECK(largest <= 1.0);
  return largest;
}

}  // namespace

TEST_CASE("exp: within its stated error on every instruction set, 0 and infinity where fp32 ends") {
  const std::vector<float> x = samples();
  on_every_set(0, x, [&](cpu::Isa, const std::vector<float>& y) {
    // Below the smallest normal number the spacing is 2^-149, and one more rounding is allowed.
    worst(
        x, y, [](double v) { return std::exp(v) > double(FLT_MAX) ? HUGE_VAL : std::exp(v); },
        [](double, double w) { return kExpError * w + 1.01 * 0x1p-149; });
  });
}

TEST_CASE("tanh: within its stated error on every instruction set") {
  const std::vector<float> x = samples();
  on_every_set(1, x, [&](cpu::Isa, const std::vector<float>& y) {
    worst(
        x, y, [](double v) { return std::tanh(v); },
        [](double, double w) { return kTanhError * std::abs(w) + 0x1p-126; });
  });
}

TEST_CASE("gelu: value and gradient within their stated errors on every instruction set, both forms") {
  std::vector<float> x = samples();
  std::erase_if(x,
                [](float v) { return std::abs(v) > 1e18f; });  // x^3 of the reference overflows later than fp32 cares
  for (const GeluKind kind : {GeluKind::erf, GeluKind::tanh}) {
    CAPTURE(int(kind));
    on_every_set(2 + int(kind), x, [&](cpu::Isa, const std::vector<float>& y) {
      worst(
          x, y, [&](double v) { return reference::gelu(kind, v); },
          [&](double v, double) { return gelu_error(kind, v); });
    });
    on_every_set(4 + int(kind), x, [&](cpu::Isa, const std::vector<float>& y) {
      worst(
          x, y, [&](double v) { return reference::gelu_gradient(kind, v); },
          [&](double v, double) { return gelu_gradient_error(kind, v); });
    });
  }
}

TEST_CASE("exp, tanh, gelu: NaN stays NaN") {
  const std::vector<float> x(33, NAN);
  for (int function = 0; function < 6; ++function)
    on_every_set(function, x, [&](cpu::Isa, const std::vector<float>& y) {
      CAPTURE(function);
      CHECK(std::all_of(y.begin(), y.end(), [](float v) { return v != v; }));
    });
}

TEST_CASE("gelu: slope and curvature stay below the constants of tolerance.h") {
  double slope = 0.0, curvature = 0.0;
  for (const GeluKind kind : {GeluKind::erf, GeluKind::tanh})
    for (double x = -12.0; x <= 12.0; x += 1e-3) {
      slope = std::max(slope, std::abs(reference::gelu_gradient(kind, x)));
      const double rise = reference::gelu_gradient(kind, x + 1e-5) - reference::gelu_gradient(kind, x - 1e-5);
      curvature = std::max(curvature, std::abs(rise) / 2e-5);
    }
  CHECK(slope < kGeluSlope);
  CHECK(slope > kGeluSlope - 0.01);
  CHECK(curvature < kGeluCurvature);
  CHECK(curvature > kGeluCurvature - 0.01);
}

}  // namespace eg::test
