// engine/reference/values.h - reads and writes one element of a view of any dtype as a double.
#pragma once
#include <algorithm>
#include <limits>

#include "engine/tensor.h"

namespace eg::reference {

inline double get(const TensorView& v, std::int64_t i) {
  switch (v.dtype) {
    case DType::f64: return static_cast<const double*>(v.data)[i];
    case DType::f32: return double(static_cast<const float*>(v.data)[i]);
    case DType::bf16: return double(static_cast<const bf16*>(v.data)[i]);
    case DType::i32: return double(static_cast<const std::int32_t*>(v.data)[i]);
    case DType::u8: return double(static_cast<const std::uint8_t*>(v.data)[i]);
  }
  fail(Kind::internal, cat("reference: no such dtype as that of ", v));
}

/// Towards zero, as a C++ conversion; what does not fit becomes the nearest number that does, NaN becomes 0.
template <class T>
T to_integer(double value) {
  if (value != value) return 0;
  return T(std::clamp(value, double(std::numeric_limits<T>::min()), double(std::numeric_limits<T>::max())));
}

inline void put(const TensorView& v, std::int64_t i, double value) {
  switch (v.dtype) {
    case DType::f64: static_cast<double*>(v.data)[i] = value; return;
    case DType::f32: static_cast<float*>(v.data)[i] = float(value); return;
    case DType::bf16: static_cast<bf16*>(v.data)[i] = bf16(value); return;
    case DType::i32: static_cast<std::int32_t*>(v.data)[i] = to_integer<std::int32_t>(value); return;
    case DType::u8: static_cast<std::uint8_t*>(v.data)[i] = to_integer<std::uint8_t>(value); return;
  }
}

/// Stores value, or adds it to what is there.
inline void put(const TensorView& v, std::int64_t i, double value, bool accumulate) {
  put(v, i, accumulate ? get(v, i) + value : value);
}

}  // namespace eg::reference
