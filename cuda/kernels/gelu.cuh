// cuda/kernels/gelu.cuh - GELU and its derivative for one number (Hendrycks & Gimpel 2016, arXiv:1606.08415).
//
//   erf form    g(x) = x Phi(x)              g'(x) = Phi(x) + x phi(x)
//   tanh form   g(x) = x (1 + tanh u) / 2    g'(x) = (1 + tanh u) / 2 + x (1 - tanh^2 u) u' / 2,  u = sqrt(2/pi) (x +
// 0.044715 x^3)
#pragma once
#include "cuda/simt.cuh"

namespace eg::EVERGRAD_BACKEND {

// erfc, not 1 + erf: far to the left erf is -1 and the sum has no digits left.
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678118654752f * x); }
__device__ __forceinline__ float tanh_argument(float x) {
  return 0.79788456080286536f * x * (1.0f + 0.044715f * x * x);
}

template <bool kTanh>
__device__ __forceinline__ float gelu(float x) {
  if constexpr (kTanh) return 0.5f * x * (1.0f + tanhf(tanh_argument(x)));
  return x * normal_cdf(x);
}

template <bool kTanh>
__device__ __forceinline__ float gelu_grad(float x) {
  if constexpr (kTanh) {
    const float t = tanhf(tanh_argument(x));
    const float slope = 0.79788456080286536f * (1.0f + 3.0f * 0.044715f * x * x);
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * slope;
  }
  return normal_cdf(x) + x * 0.39894228040143268f * expf(-0.5f * x * x);
}

}  // namespace eg::EVERGRAD_BACKEND
