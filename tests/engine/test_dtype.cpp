// tests/engine/test_dtype.cpp - bfloat16 against real arithmetic, shapes, errors.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "engine/dtype.h"
#include "engine/error.h"
#include "engine/shape.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;

TEST_CASE("bf16: all 65536 values survive the way through float (NaN stays NaN)") {
  for (std::uint32_t b = 0; b < 65536; ++b) {
    bf16 v;
    v.bits = std::uint16_t(b);
    const float f = float(v);
    if (std::isnan(f)) {
      CHECK(bf16(f).bits == 0x7fff);
    } else if (bf16(f).bits != v.bits) {
      FAIL_CHECK("bits ", b);
    }
    if (std::bit_cast<std::uint32_t>(f) != b << 16) FAIL_CHECK("widening of ", b);
  }
}

TEST_CASE("bf16: rounding is to nearest, ties to even, for every gap between neighbours") {
  // Between neighbours a < b the midpoint is exact in float; what lies below rounds to a, above to b, the tie to the
  // even.
  for (std::uint32_t b = 0; b < 0x7f80; ++b) {
    for (const std::uint32_t sign : {0u, 0x8000u}) {
      const std::uint32_t low = (b | sign) << 16;
      const auto round = [](std::uint32_t bits) { return bf16(std::bit_cast<float>(bits)).bits; };
      const std::uint16_t here = std::uint16_t(b | sign), next = std::uint16_t(here + 1);
      const bool good = round(low + 0x7fff) == here && round(low + 0x8001) == next &&
                        round(low + 0x8000) == (b & 1 ? next : here) && round(low + 1) == here &&
                        round(low + 0xffff) == next;
      if (!good) FAIL_CHECK("near bits ", here);
    }
  }
}

TEST_CASE("bf16: the nearest of two neighbours in real arithmetic") {
  std::uint32_t state = 12345;
  for (int i = 0; i < 200000; ++i) {
    state = state * 1664525u + 1013904223u;
    const float x = std::bit_cast<float>(state);
    if (!std::isfinite(x) || std::abs(x) > 3e38f) continue;
    const double rounded = double(bf16(x)), error = std::abs(rounded - double(x));
    bf16 below, above;
    below.bits = std::uint16_t(state >> 16);  // truncation
    above.bits = std::uint16_t(below.bits + 1);
    const double best = std::min(std::abs(double(below) - double(x)), std::abs(double(above) - double(x)));
    if (error != best) FAIL_CHECK("x = ", x);
    if (std::abs(x) > 1e-37f && error > unit_roundoff(DType::bf16) * std::abs(double(x))) FAIL_CHECK("roundoff at ", x);
  }
}

TEST_CASE("bf16: every NaN becomes a NaN, overflow becomes infinity, infinities and zeros keep their sign") {
  for (const std::uint32_t payload : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu, 0x7f80ffffu})
    CHECK(bf16(std::bit_cast<float>(payload)).bits == 0x7fff);
  CHECK(std::isinf(float(bf16(std::numeric_limits<float>::max()))));
  CHECK(bf16(std::bit_cast<float>(0x7f7f7fffu)).bits == 0x7f7f);  // below the last midpoint: the largest finite value
  CHECK(bf16(std::numeric_limits<float>::infinity()).bits == 0x7f80);
  CHECK(bf16(-std::numeric_limits<float>::infinity()).bits == 0xff80);
  CHECK(bf16(-0.0f).bits == 0x8000);
}

TEST_CASE("dtype: sizes, names and C++ types agree") {
  CHECK(size_of(DType::f32) == sizeof(float));
  CHECK(size_of(DType::f64) == sizeof(double));
  CHECK(size_of(DType::bf16) == sizeof(bf16));
  CHECK(size_of(DType::i32) == 4);
  CHECK(size_of(DType::u8) == 1);
  CHECK(dtype_of<const float> == DType::f32);
  CHECK(dtype_of<bf16> == DType::bf16);
  CHECK(cat(DType::bf16, ' ', DType::u8) == "bf16 u8");
  CHECK_FALSE(is_float(DType::i32));
  // u is half the distance from 1 to the next value.
  CHECK(unit_roundoff(DType::f32) == double(std::numeric_limits<float>::epsilon()) / 2);
  CHECK(unit_roundoff(DType::f64) == std::numeric_limits<double>::epsilon() / 2);
}

TEST_CASE("shape: size, rows, cols, negative axes and printing") {
  const Shape s{2, 3, 5};
  CHECK(s.size() == 30);
  CHECK(s.rows() == 6);
  CHECK(s.cols() == 5);
  CHECK(s[-1] == 5);
  CHECK(s[0] == 2);
  CHECK(cat(s) == "[2,3,5]");
  CHECK(Shape{}.size() == 1);
  CHECK(Shape{7}.rows() == 1);
  CHECK(Shape{4, 0}.size() == 0);
  CHECK(s == Shape{2, 3, 5});
  CHECK_FALSE(s == Shape{2, 3});
}

TEST_CASE("shape: negative extents, a seventh axis and overflowing products are errors") {
  error_text(Kind::shape, [] { Shape{2, -1}; });
  error_text(Kind::shape, [] { Shape{1, 1, 1, 1, 1, 1, 1}; });
  error_text(Kind::shape, [] {
    Shape s{1, 2, 3, 4, 5, 6};
    s.push_back(1);
  });
  const std::int64_t big = std::int64_t(1) << 32;
  const std::string text = error_text(Kind::shape, [&] { return Shape{big, big}.size(); });
  CHECK(text.find("overflow") != std::string::npos);
  CHECK(Shape{big, big / 4}.size() == std::int64_t(1) << 62);
}

TEST_CASE("error: carries kind, text and place; check builds the text only on failure") {
  int built = 0;
  check(true, Kind::usage, [&] {
    ++built;
    return std::string("no");
  });
  CHECK(built == 0);
  try {
    check(false, Kind::numeric, [&] {
      ++built;
      return cat("loss is ", 1.5);
    });
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.kind == Kind::numeric);
    CHECK(std::string(e.what()) == "loss is 1.5");
    CHECK(std::string(e.at.file_name()).find("test_dtype.cpp") != std::string::npos);
    CHECK(e.at.line() > 0);
  }
  CHECK(built == 1);
  CHECK_THROWS_AS(fail(Kind::io, "x"), Error);
  for (const Kind k : {Kind::usage, Kind::shape, Kind::dtype, Kind::device, Kind::io, Kind::format, Kind::memory,
                       Kind::numeric, Kind::internal})
    CHECK(std::string(to_string(k)) != "?");
}
