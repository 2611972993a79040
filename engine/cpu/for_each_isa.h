// engine/cpu/for_each_isa.h - compiles one kernel body for every instruction set.
//
//   #include "engine/cpu/isa.h"                              // all standard headers first
//   #define EVERGRAD_KERNEL_BODY "engine/cpu/gelu.inl"
//   #include "engine/cpu/for_each_isa.h"                     // eg::cpu::{generic,avx2,avx512}::...
//   namespace eg::cpu { void gelu_fwd(const GeluFwd& a, Stream) { EVERGRAD_DISPATCH(gelu_fwd, a); } }
//
// The body is plain C++ over the vector type F32 of simd.h. It opens no namespace and includes nothing. It has no
// include guard, on purpose; neither has this file.
#include "engine/cpu/isa.h"

#if defined(__x86_64__)

#define EVERGRAD_SIMD 512
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#endif
namespace eg::cpu::avx512 {
#include "engine/cpu/simd.h"
#include EVERGRAD_KERNEL_BODY
}  // namespace eg::cpu::avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef EVERGRAD_SIMD

#define EVERGRAD_SIMD 256
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace eg::cpu::avx2 {
#include "engine/cpu/simd.h"
#include EVERGRAD_KERNEL_BODY
}  // namespace eg::cpu::avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef EVERGRAD_SIMD

#endif  // __x86_64__

#define EVERGRAD_SIMD 128
namespace eg::cpu::generic {
#include "engine/cpu/simd.h"
#include EVERGRAD_KERNEL_BODY
}  // namespace eg::cpu::generic
#undef EVERGRAD_SIMD
#undef EVERGRAD_KERNEL_BODY
