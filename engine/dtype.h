// engine/dtype.h - the five element types, and bfloat16 as a plain 16-bit struct that every compiler here accepts.
#pragma once
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <type_traits>

// The one helper macro for code shared with device compilers.
#if defined(__CUDACC__)
#define EVERGRAD_HD __host__ __device__
#else
#define EVERGRAD_HD
#endif

namespace eg {

/// bfloat16: the upper half of an IEEE float. u(bf16) = 2^-8 (8 bits of significand counting the hidden one).
/// Conversion rounds to nearest even; a NaN becomes 0x7fff, as the GPU's own conversion does.
struct bf16 {
  std::uint16_t bits;
  bf16() = default;  // undefined, like any number: shared memory is not constructed; bf16{} is zero
  EVERGRAD_HD explicit bf16(float x) {
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x);
    bits =
        (u & 0x7fffffffu) > 0x7f800000u ? std::uint16_t(0x7fff) : std::uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  EVERGRAD_HD explicit bf16(double x) : bf16(static_cast<float>(x)) {}
  EVERGRAD_HD explicit operator float() const { return __builtin_bit_cast(float, std::uint32_t(bits) << 16); }
  EVERGRAD_HD explicit operator double() const { return double(float(*this)); }
};
static_assert(sizeof(bf16) == 2 && std::is_trivially_copyable_v<bf16>);

/// The type of a tensor's elements.
enum class DType : std::uint8_t { f32, bf16, i32, u8, f64 };

constexpr std::size_t size_of(DType t) {
  switch (t) {
    case DType::f32: return 4;
    case DType::bf16: return 2;
    case DType::i32: return 4;
    case DType::u8: return 1;
    case DType::f64: return 8;
  }
  return 0;
}
constexpr const char* to_string(DType t) {
  switch (t) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::i32: return "i32";
    case DType::u8: return "u8";
    case DType::f64: return "f64";
  }
  return "?";
}
constexpr bool is_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f64; }
inline std::ostream& operator<<(std::ostream& o, DType t) { return o << to_string(t); }

/// The DType of a C++ type; dtype_of<T> is its value.
template <class T>
struct dtype_of_type;
template <>
struct dtype_of_type<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of_type<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct dtype_of_type<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of_type<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct dtype_of_type<std::uint8_t> {
  static constexpr DType value = DType::u8;
};
template <class T>
inline constexpr DType dtype_of = dtype_of_type<std::remove_const_t<T>>::value;

/// Unit roundoff of a type: the largest relative error of rounding to nearest.
constexpr double unit_roundoff(DType t) {
  switch (t) {
    case DType::f32: return 0x1p-24;
    case DType::bf16: return 0x1p-8;
    case DType::f64: return 0x1p-53;
    default: return 0.0;
  }
}

}  // namespace eg
