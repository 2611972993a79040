// engine/cpu/simd.h - F32, a vector of 16, 8 or 4 floats, and the elementary functions that kernels need.
//
// Included by for_each_isa.h inside eg::cpu::{avx512,avx2,generic}, once per instruction set; no include guard, no
// namespace, no includes of its own (isa.h has them all). EVERGRAD_SIMD is the register width in bits.
//
//   load(p), load(p, n)         kLanes elements, or the first n and zeros; p points to float, bf16 or u8
//   store(p, x), store(p, x, n) the same into float or bf16; bf16 rounds to nearest even, NaN becomes 0x7fff (dtype.h)
//   fma(a, b, c) = a b + c      one rounding, except in `generic` on x86-64, which has no such instruction: two
//   fnma(a, b, c) = c - a b
//   a < b, a <= b, select(m, a, b) = m ? a : b
//   min(a, b), max(a, b)        give b when either is NaN: put the value that may be NaN second
//   reduce_add, reduce_max      fixed order (halves are folded onto each other)
//   exp, tanh, gelu, gelu_grad  accuracy, largest error against double over all of fp32, in ulp: see the functions
// Results of one instruction set are the same on every machine; those of different ones agree to rounding.

#if EVERGRAD_SIMD == 512

struct F32 {
  static constexpr int kLanes = 16;
  __m512 v;
};
struct Mask {
  __mmask16 m;
};
EVERGRAD_INLINE __mmask16 first(std::int64_t n) { return __mmask16((1u << unsigned(n)) - 1u); }
EVERGRAD_INLINE F32 zero() { return {_mm512_setzero_ps()}; }
EVERGRAD_INLINE F32 broadcast(float x) { return {_mm512_set1_ps(x)}; }
EVERGRAD_INLINE F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
EVERGRAD_INLINE F32 load(const float* p, std::int64_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
EVERGRAD_INLINE F32 widen(__m256i x) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16))}; }
EVERGRAD_INLINE F32 load(const bf16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
EVERGRAD_INLINE F32 load(const bf16* p, std::int64_t n) { return widen(_mm256_maskz_loadu_epi16(first(n), p)); }
EVERGRAD_INLINE F32 load(const std::uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
EVERGRAD_INLINE F32 load(const std::uint8_t* p, std::int64_t n) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(n), p)))};
}
EVERGRAD_INLINE void store(float* p, F32 x) { _mm512_storeu_ps(p, x.v); }
EVERGRAD_INLINE void store(float* p, F32 x, std::int64_t n) { _mm512_mask_storeu_ps(p, first(n), x.v); }
EVERGRAD_INLINE __m256i narrow(F32 x) {
  const __m512i u = _mm512_castps_si512(x.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(r, nan, _mm512_set1_epi32(0x7fff)));
}
EVERGRAD_INLINE void store(bf16* p, F32 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }
EVERGRAD_INLINE void store(bf16* p, F32 x, std::int64_t n) { _mm256_mask_storeu_epi16(p, first(n), narrow(x)); }
EVERGRAD_INLINE F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
EVERGRAD_INLINE F32 fnma(F32 a, F32 b, F32 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
EVERGRAD_INLINE F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 sqrt(F32 a) { return {_mm512_sqrt_ps(a.v)}; }
EVERGRAD_INLINE F32 abs(F32 a) { return {_mm512_abs_ps(a.v)}; }
EVERGRAD_INLINE F32 copysign(F32 magnitude, F32 sign) {
  const __m512i bit = _mm512_set1_epi32(int(0x80000000u));
  return {_mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(bit, _mm512_castps_si512(sign.v), _mm512_castps_si512(magnitude.v), 0xca))};
}
EVERGRAD_INLINE F32 round(F32 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
EVERGRAD_INLINE F32 scale_by_power(F32 a, F32 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
EVERGRAD_INLINE Mask operator<(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
EVERGRAD_INLINE Mask operator<=(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
EVERGRAD_INLINE F32 select(Mask m, F32 a, F32 b) { return {_mm512_mask_mov_ps(b.v, m.m, a.v)}; }
EVERGRAD_INLINE Mask first_lanes(std::int64_t n) { return {first(n)}; }
/// Reverses the order of the lanes.
EVERGRAD_INLINE F32 reverse(F32 a) {
  return {_mm512_permutexvar_ps(_mm512_set_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), a.v)};
}
template <class Fold>
EVERGRAD_INLINE float fold(F32 a, Fold f) {
  const __m512 b = f(a, F32{_mm512_shuffle_f32x4(a.v, a.v, 0x4e)}).v;
  const __m512 c = f(F32{b}, F32{_mm512_shuffle_f32x4(b, b, 0xb1)}).v;
  const __m512 d = f(F32{c}, F32{_mm512_permute_ps(c, 0x4e)}).v;
  return _mm512_cvtss_f32(f(F32{d}, F32{_mm512_permute_ps(d, 0xb1)}).v);
}

#elif EVERGRAD_SIMD == 256

struct F32 {
  static constexpr int kLanes = 8;
  __m256 v;
};
struct Mask {
  __m256 m;
};
alignas(64) inline constexpr std::int32_t kFirst[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
EVERGRAD_INLINE __m256i first(std::int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirst + 8 - n));
}
EVERGRAD_INLINE F32 zero() { return {_mm256_setzero_ps()}; }
EVERGRAD_INLINE F32 broadcast(float x) { return {_mm256_set1_ps(x)}; }
EVERGRAD_INLINE F32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
EVERGRAD_INLINE F32 load(const float* p, std::int64_t n) { return {_mm256_maskload_ps(p, first(n))}; }
EVERGRAD_INLINE F32 widen(__m128i x) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16))}; }
template <class T>
EVERGRAD_INLINE __m128i load_part(const T* p, std::int64_t n) {
  alignas(16) T part[16 / sizeof(T)]{};
  for (std::int64_t i = 0; i < n; ++i) part[i] = p[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(part));
}
EVERGRAD_INLINE F32 load(const bf16* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
EVERGRAD_INLINE F32 load(const bf16* p, std::int64_t n) { return widen(load_part(p, n)); }
EVERGRAD_INLINE F32 load(const std::uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
EVERGRAD_INLINE F32 load(const std::uint8_t* p, std::int64_t n) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_part(p, n)))};
}
EVERGRAD_INLINE void store(float* p, F32 x) { _mm256_storeu_ps(p, x.v); }
EVERGRAD_INLINE void store(float* p, F32 x, std::int64_t n) { _mm256_maskstore_ps(p, first(n), x.v); }
EVERGRAD_INLINE __m128i narrow(F32 x) {
  const __m256i u = _mm256_castps_si256(x.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q));
  const __m256i y = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fff), nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(y, y), 0x08);
  return _mm256_castsi256_si128(packed);
}
EVERGRAD_INLINE void store(bf16* p, F32 x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(x)); }
EVERGRAD_INLINE void store(bf16* p, F32 x, std::int64_t n) {
  alignas(16) bf16 part[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(part), narrow(x));
  for (std::int64_t i = 0; i < n; ++i) p[i] = part[i];
}
EVERGRAD_INLINE F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
EVERGRAD_INLINE F32 fnma(F32 a, F32 b, F32 c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
EVERGRAD_INLINE F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
EVERGRAD_INLINE F32 sqrt(F32 a) { return {_mm256_sqrt_ps(a.v)}; }
EVERGRAD_INLINE F32 abs(F32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
EVERGRAD_INLINE F32 copysign(F32 magnitude, F32 sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_and_ps(bit, sign.v), _mm256_andnot_ps(bit, magnitude.v))};
}
EVERGRAD_INLINE F32 round(F32 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a 2^n in two steps, so that results below the smallest normal number are rounded once and not lost.
EVERGRAD_INLINE F32 scale_by_power(F32 a, F32 n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const __m256i p = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i q = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, _mm256_castsi256_ps(p)), _mm256_castsi256_ps(q))};
}
EVERGRAD_INLINE Mask operator<(F32 a, F32 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
EVERGRAD_INLINE Mask operator<=(F32 a, F32 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
EVERGRAD_INLINE F32 select(Mask m, F32 a, F32 b) { return {_mm256_blendv_ps(b.v, a.v, m.m)}; }
EVERGRAD_INLINE Mask first_lanes(std::int64_t n) { return {_mm256_castsi256_ps(first(n))}; }
EVERGRAD_INLINE F32 reverse(F32 a) { return {_mm256_permutevar8x32_ps(a.v, _mm256_set_epi32(0, 1, 2, 3, 4, 5, 6, 7))}; }
template <class Fold>
EVERGRAD_INLINE float fold(F32 a, Fold f) {
  const __m256 b = f(a, F32{_mm256_permute2f128_ps(a.v, a.v, 1)}).v;
  const __m256 c = f(F32{b}, F32{_mm256_permute_ps(b, 0x4e)}).v;
  return _mm256_cvtss_f32(f(F32{c}, F32{_mm256_permute_ps(c, 0xb1)}).v);
}

#else

using V4 = float __attribute__((vector_size(16)));
using I4 = std::int32_t __attribute__((vector_size(16)));
struct F32 {
  static constexpr int kLanes = 4;
  V4 v;
};
struct Mask {
  I4 m;
};
EVERGRAD_INLINE F32 zero() { return {V4{0, 0, 0, 0}}; }
EVERGRAD_INLINE F32 broadcast(float x) { return {V4{x, x, x, x}}; }
EVERGRAD_INLINE F32 load(const float* p) {
  F32 x;
  std::memcpy(&x.v, p, sizeof(x.v));
  return x;
}
EVERGRAD_INLINE F32 load(const float* p, std::int64_t n) {
  return {V4{n > 0 ? p[0] : 0.0f, n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, n > 3 ? p[3] : 0.0f}};
}
template <class T>
EVERGRAD_INLINE F32 load(const T* p) {
  return {V4{float(p[0]), float(p[1]), float(p[2]), float(p[3])}};
}
template <class T>
EVERGRAD_INLINE F32 load(const T* p, std::int64_t n) {
  return {V4{n > 0 ? float(p[0]) : 0.0f, n > 1 ? float(p[1]) : 0.0f, n > 2 ? float(p[2]) : 0.0f,
             n > 3 ? float(p[3]) : 0.0f}};
}
EVERGRAD_INLINE void store(float* p, F32 x) { std::memcpy(p, &x.v, sizeof(x.v)); }
template <class T>
EVERGRAD_INLINE void store(T* p, F32 x, std::int64_t n) {
  for (std::int64_t i = 0; i < 4 && i < n; ++i) p[i] = T(x.v[i]);
}
EVERGRAD_INLINE void store(bf16* p, F32 x) { store(p, x, 4); }
EVERGRAD_INLINE F32 operator+(F32 a, F32 b) { return {a.v + b.v}; }
EVERGRAD_INLINE F32 operator-(F32 a, F32 b) { return {a.v - b.v}; }
EVERGRAD_INLINE F32 operator*(F32 a, F32 b) { return {a.v * b.v}; }
EVERGRAD_INLINE F32 operator/(F32 a, F32 b) { return {a.v / b.v}; }
#if defined(__aarch64__)
EVERGRAD_INLINE F32 fma(F32 a, F32 b, F32 c) {
  return {V4(vfmaq_f32(float32x4_t(c.v), float32x4_t(a.v), float32x4_t(b.v)))};
}
EVERGRAD_INLINE F32 fnma(F32 a, F32 b, F32 c) {
  return {V4(vfmsq_f32(float32x4_t(c.v), float32x4_t(a.v), float32x4_t(b.v)))};
}
#else
EVERGRAD_INLINE F32 fma(F32 a, F32 b, F32 c) { return {a.v * b.v + c.v}; }
EVERGRAD_INLINE F32 fnma(F32 a, F32 b, F32 c) { return {c.v - a.v * b.v}; }
#endif
EVERGRAD_INLINE F32 min(F32 a, F32 b) { return {a.v < b.v ? a.v : b.v}; }
EVERGRAD_INLINE F32 max(F32 a, F32 b) { return {a.v > b.v ? a.v : b.v}; }
EVERGRAD_INLINE F32 sqrt(F32 a) {
  return {V4{std::sqrt(a.v[0]), std::sqrt(a.v[1]), std::sqrt(a.v[2]), std::sqrt(a.v[3])}};
}
EVERGRAD_INLINE F32 abs(F32 a) { return {V4(I4(a.v) & 0x7fffffff)}; }
EVERGRAD_INLINE F32 copysign(F32 magnitude, F32 sign) {
  return {V4((I4(magnitude.v) & 0x7fffffff) | (I4(sign.v) & ~0x7fffffff))};
}
// Adding 1.5 2^23 pushes the fraction out of the significand; right for |a| < 2^22, which is all that is asked here.
EVERGRAD_INLINE F32 round(F32 a) { return {(a.v + 12582912.0f) - 12582912.0f}; }
EVERGRAD_INLINE F32 scale_by_power(F32 a, F32 n) {
  const I4 whole = I4(n.v + 12582912.0f) - 0x4b400000, half = whole >> 1;
  return {a.v * V4((half + 127) << 23) * V4((whole - half + 127) << 23)};
}
EVERGRAD_INLINE Mask operator<(F32 a, F32 b) { return {a.v < b.v}; }
EVERGRAD_INLINE Mask operator<=(F32 a, F32 b) { return {a.v <= b.v}; }
EVERGRAD_INLINE F32 select(Mask m, F32 a, F32 b) { return {V4((m.m & I4(a.v)) | (~m.m & I4(b.v)))}; }
EVERGRAD_INLINE Mask first_lanes(std::int64_t n) {
  return {I4{n > 0 ? -1 : 0, n > 1 ? -1 : 0, n > 2 ? -1 : 0, n > 3 ? -1 : 0}};
}
EVERGRAD_INLINE F32 reverse(F32 a) { return {V4{a.v[3], a.v[2], a.v[1], a.v[0]}}; }
template <class Fold>
EVERGRAD_INLINE float fold(F32 a, Fold f) {
  const V4 b = f(a, F32{V4{a.v[2], a.v[3], a.v[0], a.v[1]}}).v;
  return f(F32{b}, F32{V4{b[1], b[0], b[3], b[2]}}).v[0];
}

#endif

// ---- the same for every width -------------------------------------------------------------------------------------

EVERGRAD_INLINE F32 operator-(F32 a) { return zero() - a; }
EVERGRAD_INLINE F32& operator+=(F32& a, F32 b) { return a = a + b; }
EVERGRAD_INLINE F32& operator-=(F32& a, F32 b) { return a = a - b; }
EVERGRAD_INLINE F32& operator*=(F32& a, F32 b) { return a = a * b; }

struct FoldAdd {
  EVERGRAD_INLINE F32 operator()(F32 a, F32 b) const { return a + b; }
};
struct FoldMax {
  EVERGRAD_INLINE F32 operator()(F32 a, F32 b) const { return max(a, b); }
};
EVERGRAD_INLINE float reduce_add(F32 a) { return fold(a, FoldAdd()); }
EVERGRAD_INLINE float reduce_max(F32 a) { return fold(a, FoldMax()); }

/// Calls body(i, n) for i = 0, kLanes, 2 kLanes, ...: n == kLanes in full vectors, less in the last.
template <class Body>
EVERGRAD_INLINE void for_each_vector(std::int64_t count, const Body& body) {
  std::int64_t i = 0;
  for (; i + F32::kLanes <= count; i += F32::kLanes) body(i, std::int64_t(F32::kLanes));
  if (i < count) body(i, count - i);
}
/// load and store that take the masked path only for a part of a vector.
template <class T>
EVERGRAD_INLINE F32 load_some(const T* p, std::int64_t n) {
  return n == F32::kLanes ? load(p) : load(p, n);
}
template <class T>
EVERGRAD_INLINE void store_some(T* p, F32 x, std::int64_t n) {
  if (n == F32::kLanes)
    store(p, x);
  else
    store(p, x, n);
}

// x = n ln 2 + r, |r| <= ln 2 / 2 with ln 2 split in two; e^r - 1 = r + r^2 q(r), q of degree 4: relative error of e^r
// 1.1e-8 (2^-26) before rounding.
struct Reduced {
  F32 n, expm1;
};
EVERGRAD_INLINE Reduced reduce_exp(F32 x) {
  const F32 n = round(x * broadcast(1.44269504f));
  const F32 r = fnma(n, broadcast(-2.12194440e-4f), fnma(n, broadcast(0.693359375f), x));
  F32 q = fma(broadcast(0.00139264005f), r, broadcast(0.00836335268f));
  q = fma(q, r, broadcast(0.0416665533f));
  q = fma(q, r, broadcast(0.166665759f));
  q = fma(q, r, broadcast(0.5f));
  return {n, fma(q * r, r, r)};
}

/// e^x: 1.1 ulp; 0 below about -104, infinity above about 88.7, NaN stays NaN.
EVERGRAD_INLINE F32 exp(F32 x) {
  const Reduced e = reduce_exp(min(broadcast(89.5f), max(broadcast(-105.0f), x)));
  return scale_by_power(e.expm1 + broadcast(1.0f), e.n);
}

/// tanh x = t / (t + 2) with t = e^(2|x|) - 1, so that nothing cancels near 0: 2.5 ulp.
EVERGRAD_INLINE F32 tanh(F32 x) {
  const Reduced e = reduce_exp(min(broadcast(20.0f), abs(x + x)));
  const F32 power = scale_by_power(broadcast(1.0f), e.n);
  const F32 t = fma(power, e.expm1, power - broadcast(1.0f));
  return copysign(t / (t + broadcast(2.0f)), x);
}

// Phi(-t) = e^(-t^2/2) R(t) for t >= 0, where R(t) = erfcx(t / sqrt 2) / 2 is smooth and falls like 0.4 / t. With
// w = 1 / (t + 3.75), R = w p(9.375 w - 1.5), p of degree 8: relative error 2.8e-8. The rounding error of t^2 is
// carried along, because the exponential would blow it up.
struct NormalTail {
  F32 below;  // Phi(-t)
  F32 gauss;  // e^(-t^2/2)
};
EVERGRAD_INLINE NormalTail normal_tail(F32 t) {
  t = min(broadcast(15.0f), t);
  const F32 w = broadcast(1.0f) / (t + broadcast(3.75f)), s = fma(broadcast(9.375f), w, broadcast(-1.5f));
  F32 p = fma(broadcast(7.5505520368e-5f), s, broadcast(4.1732150582e-5f));
  p = fma(p, s, broadcast(-0.0011519237092f));
  p = fma(p, s, broadcast(-0.0021074271891f));
  p = fma(p, s, broadcast(0.0138040723916f));
  p = fma(p, s, broadcast(0.0923376040118f));
  p = fma(p, s, broadcast(0.289696757352f));
  p = fma(p, s, broadcast(0.598982891128f));
  p = fma(p, s, broadcast(0.883320821129f));
  const F32 square = t * t, half = broadcast(-0.5f);
#if EVERGRAD_SIMD > 128
  const F32 lost = fma(t, t, zero() - square) * half;
#else
  const F32 lost = zero();
#endif
  const Reduced e = reduce_exp(square * half);
  const F32 rough = scale_by_power(e.expm1 + broadcast(1.0f), e.n), gauss = fma(rough, lost, rough);
  return {gauss * (w * p), gauss};
}

/// Phi(x), the distribution function of the standard normal.
EVERGRAD_INLINE F32 normal_cdf(F32 x, NormalTail tail) {
  return select(x < zero(), tail.below, broadcast(1.0f) - tail.below);
}

/// gelu(x) = x Phi(x): 6.9 ulp, and 1.2e-7 max(1, |x|) absolute (`generic` without fma: 66 ulp where x < -8).
EVERGRAD_INLINE F32 gelu_erf(F32 x) { return x * normal_cdf(x, normal_tail(abs(x))); }
/// gelu'(x) = Phi(x) + x phi(x): 2.7e-7 max(1, |x|) absolute; it passes through zero near -0.75.
EVERGRAD_INLINE F32 gelu_grad_erf(F32 x) {
  const NormalTail tail = normal_tail(abs(x));
  return fma(x * broadcast(0.398942280f), tail.gauss, normal_cdf(x, tail));
}
// The tanh form is x sigmoid(2 u) with u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation for negative x.
// Absolute error: 1.5e-7 max(1, |x|) of the value, 4.0e-7 max(1, |x|) of the gradient.
struct TanhForm {
  F32 sigmoid, du;  // sigmoid(2 u), 2 du/dx
};
EVERGRAD_INLINE TanhForm tanh_form(F32 x) {
  x = min(broadcast(15.0f), max(broadcast(-15.0f), x));  // both ends are long flat; keeps 0 times infinity away
  const F32 square = x * x, c = broadcast(1.59576912f);
  const F32 e = exp(zero() - c * fma(square * broadcast(0.044715f), x, x));
  return {broadcast(1.0f) / (broadcast(1.0f) + e), c * fma(square, broadcast(0.134145f), broadcast(1.0f))};
}
EVERGRAD_INLINE F32 gelu_tanh(F32 x) { return x * tanh_form(x).sigmoid; }
EVERGRAD_INLINE F32 gelu_grad_tanh(F32 x) {
  const TanhForm f = tanh_form(x);
  const F32 slope = f.sigmoid * (broadcast(1.0f) - f.sigmoid);
  return fma(x * slope, f.du, f.sigmoid);
}
template <GeluKind kind>
EVERGRAD_INLINE F32 gelu(F32 x) {
  if constexpr (kind == GeluKind::erf)
    return gelu_erf(x);
  else
    return gelu_tanh(x);
}
template <GeluKind kind>
EVERGRAD_INLINE F32 gelu_grad(F32 x) {
  if constexpr (kind == GeluKind::erf)
    return gelu_grad_erf(x);
  else
    return gelu_grad_tanh(x);
}
