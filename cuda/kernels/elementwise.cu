// cuda/kernels/elementwise.cu - one number in, one number out: sums, scaling, conversion, GELU and its gradient.
//
// Math     add out = a + b; axpy out += alpha a; scale_by out (+)= a factor[0]; fill; cast; y = gelu(a); out (+)= b
//          gelu'(a)
// Traffic  the operands once each, 16 bytes a load (8 elements of bf16); nothing is kept
// Work     1 to 20 FLOP an element: bound by memory
// Mapping  a thread takes packs of 8 elements, grid-stride
// Limits   any size and alignment; unaligned operands and integers go element by element
#include "cuda/kernels/elementwise.h"

#include "cuda/kernels/gelu.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

template <Elementwise kWhat>
__device__ __forceinline__ float apply(const ElementwiseParams& p, float a, float b, float old) {
  if constexpr (kWhat == Elementwise::add) return a + b;
  if constexpr (kWhat == Elementwise::axpy) return old + float(p.value) * a;
  if constexpr (kWhat == Elementwise::scale_by) return old + a * p.factor[0];
  if constexpr (kWhat == Elementwise::gelu_erf) return gelu<false>(a);
  if constexpr (kWhat == Elementwise::gelu_tanh) return gelu<true>(a);
  if constexpr (kWhat == Elementwise::gelu_grad_erf) return old + b * gelu_grad<false>(a);
  if constexpr (kWhat == Elementwise::gelu_grad_tanh) return old + b * gelu_grad<true>(a);
  return 0.0f;
}

template <Elementwise kWhat>
__global__ void __launch_bounds__(256) elementwise_device(const ElementwiseParams p) {
  constexpr bool kTwo =
      kWhat == Elementwise::add || kWhat == Elementwise::gelu_grad_erf || kWhat == Elementwise::gelu_grad_tanh;
  const bool adds = kWhat == Elementwise::axpy || p.accumulate;
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    float a[kPack], b[kPack] = {}, old[kPack] = {};
    load_some(p.a, i, count, wide, a);
    if (kTwo) load_some(p.b, i, count, wide, b);
    if (adds) load_some(p.out, i, count, wide, old);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) a[k] = apply<kWhat>(p, a[k], b[k], old[k]);
    store_some(p.out, i, count, wide, a);
  });
}

/// Towards zero; what does not fit becomes the nearest number that does, NaN becomes 0.
__device__ __forceinline__ void store_any(const Operand& o, std::int64_t i, double x) {
  const double number = x == x ? x : 0.0;
  switch (o.type) {
    case DType::f64: static_cast<double*>(o.data)[i] = x; return;
    case DType::f32: static_cast<float*>(o.data)[i] = float(x); return;
    case DType::bf16: static_cast<bf16*>(o.data)[i] = to_bf16(float(x)); return;
    case DType::i32:
      static_cast<std::int32_t*>(o.data)[i] = std::int32_t(fmin(fmax(number, -2147483648.0), 2147483647.0));
      return;
    case DType::u8: static_cast<std::uint8_t*>(o.data)[i] = std::uint8_t(fmin(fmax(number, 0.0), 255.0)); return;
  }
}
__device__ __forceinline__ double load_any(const Operand& o, std::int64_t i) {
  if (o.type == DType::f64) return static_cast<const double*>(o.data)[i];
  if (o.type == DType::i32) return double(static_cast<const std::int32_t*>(o.data)[i]);
  return double(load_at(o, i));
}

template <bool kFill>
__global__ void __launch_bounds__(256) convert_device(const ElementwiseParams p) {
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    if (wide) {
      float v[kPack];
      if (!kFill) load_pack(p.a, i, v);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack && kFill; ++k) v[k] = float(p.value);
      store_pack(p.out, i, v);
    } else {
      for (int k = 0; k < count; ++k) store_any(p.out, i + k, kFill ? p.value : load_any(p.a, i + k));
    }
  });
}

}  // namespace

ElementwiseKernel elementwise_kernel(Elementwise what) {
  switch (what) {
    case Elementwise::add: return &elementwise_device<Elementwise::add>;
    case Elementwise::axpy: return &elementwise_device<Elementwise::axpy>;
    case Elementwise::scale_by: return &elementwise_device<Elementwise::scale_by>;
    case Elementwise::gelu_erf: return &elementwise_device<Elementwise::gelu_erf>;
    case Elementwise::gelu_tanh: return &elementwise_device<Elementwise::gelu_tanh>;
    case Elementwise::gelu_grad_erf: return &elementwise_device<Elementwise::gelu_grad_erf>;
    case Elementwise::gelu_grad_tanh: return &elementwise_device<Elementwise::gelu_grad_tanh>;
    case Elementwise::fill: return &convert_device<true>;
    case Elementwise::cast: return &convert_device<false>;
  }
  return nullptr;
}

}  // namespace eg::EVERGRAD_BACKEND
