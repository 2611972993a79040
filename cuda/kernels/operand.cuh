// cuda/kernels/operand.cuh - an array whose type is known at the launch, not at compile time.
//
// Kernels that are bound by memory read eight elements at a time through a branch that all threads take alike; it costs
// nothing beside the access, and saves one instance of the kernel for every combination of types.
#pragma once
#include "cuda/simt.cuh"

namespace eg::EVERGRAD_BACKEND {

/// A pointer and what it points to. data == nullptr: absent.
struct Operand {
  void* data;
  DType type;
};

inline constexpr int kPack = 8;  // elements that a thread moves at once: 16 bytes of bf16, 32 of fp32

#if EVERGRAD_HAS_DEVICE_WORDS

__device__ __forceinline__ float load_at(const Operand& o, std::int64_t i) {
  switch (o.type) {
    case DType::f32: return static_cast<const float*>(o.data)[i];
    case DType::bf16: return float(static_cast<const bf16*>(o.data)[i]);
    case DType::f64: return float(static_cast<const double*>(o.data)[i]);
    case DType::i32: return float(static_cast<const std::int32_t*>(o.data)[i]);
    case DType::u8: return float(static_cast<const std::uint8_t*>(o.data)[i]);
  }
  return 0.0f;
}

__device__ __forceinline__ void store_at(const Operand& o, std::int64_t i, float x) {
  switch (o.type) {
    case DType::f32: static_cast<float*>(o.data)[i] = x; return;
    case DType::bf16: static_cast<bf16*>(o.data)[i] = to_bf16(x); return;
    case DType::f64: static_cast<double*>(o.data)[i] = double(x); return;
    default: return;  // integers are written by cast and by cross_entropy alone, each in its own way
  }
}

/// Elements i .. i+7 as fp32. i is a multiple of 8 and the array 16-byte aligned; f32 and bf16 only.
__device__ __forceinline__ void load_pack(const Operand& o, std::int64_t i, float (&v)[kPack]) {
  if (o.type == DType::bf16) {
    const auto in = load_vec<Vec<bf16, 8>>(static_cast<const bf16*>(o.data) + i);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) v[k] = float(in.v[k]);
  } else {
    const float* const p = static_cast<const float*>(o.data) + i;
    const auto low = load_vec<Vec<float, 4>>(p), high = load_vec<Vec<float, 4>>(p + 4);
    EVERGRAD_UNROLL
    for (int k = 0; k < 4; ++k) v[k] = low.v[k], v[k + 4] = high.v[k];
  }
}

__device__ __forceinline__ void store_pack(const Operand& o, std::int64_t i, const float (&v)[kPack]) {
  if (o.type == DType::bf16) {
    Vec<bf16, 8> out;
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) out.v[k] = to_bf16(v[k]);
    store_vec(static_cast<bf16*>(o.data) + i, out);
  } else {
    float* const p = static_cast<float*>(o.data) + i;
    Vec<float, 4> low, high;
    EVERGRAD_UNROLL
    for (int k = 0; k < 4; ++k) low.v[k] = v[k], high.v[k] = v[k + 4];
    store_vec(p, low), store_vec(p + 4, high);
  }
}

/// Calls f(i, count, wide) for this thread's packs of [0, n): wide when load_pack may be used, else element by element.
template <class F>
__device__ __forceinline__ void for_each_pack(std::int64_t n, bool wide, const F& f) {
  const std::int64_t stride = std::int64_t(gridDim.x) * blockDim.x * kPack;
  for (std::int64_t i = (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * kPack; i < n; i += stride) {
    const int count = n - i < kPack ? int(n - i) : kPack;
    f(i, count, wide && count == kPack);
  }
}
/// Eight elements, or the `count` that are left; the rest is zero.
__device__ __forceinline__ void load_some(const Operand& o, std::int64_t i, int count, bool wide, float (&v)[kPack]) {
  if (wide) return load_pack(o, i, v);
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) v[k] = k < count ? load_at(o, i + k) : 0.0f;
}
__device__ __forceinline__ void store_some(const Operand& o, std::int64_t i, int count, bool wide,
                                           const float (&v)[kPack]) {
  if (wide) return store_pack(o, i, v);
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k)
    if (k < count) store_at(o, i + k, v[k]);
}

/// b^n by squaring: no call of a library function, whose registers would have to be saved around it.
__device__ __forceinline__ double power(double b, std::int64_t n) {
  double result = 1.0;
  for (; n > 0; n /= 2, b *= b)
    if (n % 2) result *= b;
  return result;
}

#endif  // EVERGRAD_HAS_DEVICE_WORDS

}  // namespace eg::EVERGRAD_BACKEND
