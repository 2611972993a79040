// engine/cpu/isa.h - which instruction set the kernels of this process run on, and the scratch they share.
//
// Every kernel body is compiled three times (for_each_isa.h) and one copy is chosen here, once per process, by CPUID
// feature bits: processor names are no guide, virtual machines lie about them. EVERGRAD_CPU=generic|avx2|avx512 lowers
// the choice for comparisons, use_isa() for tests. All standard headers that kernel bodies need are included here,
// outside the regions that are compiled for a wider instruction set, so that no inline function of the standard library
// is ever emitted with instructions that the machine lacks.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
// g++ 12 warns about its own _mm512_undefined_* once they are inlined (its bug 105593).
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "engine/error.h"
#include "engine/kernels.h"
#include "engine/parallel.h"

#define EVERGRAD_INLINE inline __attribute__((always_inline))
/// Before a loop with a constant trip count whose body must end up in registers.
#if defined(__clang__)
#define EVERGRAD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define EVERGRAD_UNROLL _Pragma("GCC unroll 16")
#endif

namespace eg::cpu {

enum class Isa { generic, avx2, avx512 };

inline const char* to_string(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "generic"; }

/// The widest instruction set of this machine that the kernels know.
inline Isa widest_isa() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::generic;
}

namespace detail {
inline Isa choose_isa() {
  const Isa widest = widest_isa();
  const char* const text = std::getenv("EVERGRAD_CPU");
  if (!text || !*text) return widest;
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512})
    if (std::string(text) == to_string(isa)) {
      check(isa <= widest, Kind::usage, [&] {
        return cat("EVERGRAD_CPU=", text, ", but this machine goes up to ", to_string(widest), ": lower or unset it");
      });
      return isa;
    }
  fail(Kind::usage, cat("EVERGRAD_CPU=", text, " is unknown: use generic, avx2 or avx512, or unset it"));
}
inline Isa& isa_in_use() {
  static Isa chosen = choose_isa();
  return chosen;
}
}  // namespace detail

/// The instruction set in use. Throws Error{usage} when EVERGRAD_CPU is unknown or asks for more than the machine has.
inline Isa isa() { return detail::isa_in_use(); }

/// Switches all kernels to another instruction set, while none is running: one process can so test them all. Throws
/// Error{usage} when the machine lacks it.
inline void use_isa(Isa wanted) {
  check(wanted <= widest_isa(), Kind::usage,
        [&] { return cat("this machine has no ", to_string(wanted), ", it goes up to ", to_string(widest_isa())); });
  detail::isa_in_use() = wanted;
}

/// A 64-byte aligned block of at least `floats` floats that belongs to the calling thread and keeps its contents until
/// the thread asks again; for kernels that need working memory inside one chunk, never across chunks.
inline float* thread_scratch(std::size_t floats) {
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  thread_local std::unique_ptr<float, Free> block;
  thread_local std::size_t held = 0;
  if (floats > held) {
    block.reset();
    held = 0;
    block.reset(static_cast<float*>(::operator new(floats * sizeof(float), std::align_val_t(64))));
    held = floats;
  }
  return block.get();
}

/// Calls body(T()) with the activation type T of a kernel. Throws Error{dtype} when the type is neither f32 nor bf16.
template <class Body>
void with_activation(const char* kernel, DType type, const Body& body) {
  if (type == DType::f32) return body(float());
  if (type == DType::bf16) return body(bf16());
  fail(Kind::dtype, cat("cpu: ", kernel, " takes f32 or bf16, got ", type, ": convert the tensor first"));
}

/// A small parameter or statistic of any float type as floats; empty when the view is absent.
inline std::vector<float> as_floats(const TensorView& view) {
  std::vector<float> values(view ? std::size_t(view.size()) : 0);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = view.dtype == DType::f32    ? view.as<float>()[i]
                : view.dtype == DType::bf16 ? float(view.as<bf16>()[i])
                                            : float(view.as<double>()[i]);
  return values;
}

/// Writes or adds `values` to the gradient of a small parameter (f32, bf16 or f64); nothing when the view is absent.
inline void write_gradient(const TensorView& view, const float* values, bool accumulate) {
  const std::int64_t n = view ? view.size() : 0;
  const auto write = [&](auto* out) {
    using T = std::remove_pointer_t<decltype(out)>;
    using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
    for (std::int64_t i = 0; i < n; ++i) out[i] = T(accumulate ? Sum(out[i]) + Sum(values[i]) : Sum(values[i]));
  };
  if (view.dtype == DType::f32) return write(view.as<float>());
  if (view.dtype == DType::bf16) return write(view.as<bf16>());
  write(view.as<double>());
}

/// Rows per chunk for a sum over rows: at most 64 chunks, each worth a thread's while; depends on the shape alone.
inline std::int64_t rows_per_chunk(std::int64_t rows, std::int64_t columns) {
  const std::int64_t worthwhile = std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, columns));
  return std::max(worthwhile, (rows + 63) / 64);
}

}  // namespace eg::cpu

/// Calls the copy of `function` that was compiled for the instruction set in use: EVERGRAD_DISPATCH(gelu_fwd, args).
#if defined(__x86_64__)
#define EVERGRAD_DISPATCH(function, ...)                                      \
  (::eg::cpu::isa() == ::eg::cpu::Isa::avx512 ? avx512::function(__VA_ARGS__) \
   : ::eg::cpu::isa() == ::eg::cpu::Isa::avx2 ? avx2::function(__VA_ARGS__)   \
                                              : generic::function(__VA_ARGS__))
#else
#define EVERGRAD_DISPATCH(function, ...) (generic::function(__VA_ARGS__))
#endif
