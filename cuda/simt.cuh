// cuda/simt.cuh - the vocabulary of kernels: thread, warp and block words, wide loads, asynchronous copies, tensor
// cores.
//
// The only file that knows which compiler runs. nvcc gets CUDA's headers and inline PTX; the host compiler gets
// emulated/words.h, where the same words run on fibers (the emulated device). A third case is the host compiler
// building the launch wrappers of the CUDA backend: it sees CUDA's host header and the plain types only. Kernels
// include this file and nothing else that is not plain data; they use no inline PTX, no raw __shared__ and no
// __CUDA_ARCH__.
#pragma once
#include <cstdint>
#include <type_traits>

#include "engine/dtype.h"

#ifndef EVERGRAD_BACKEND
#error "EVERGRAD_BACKEND must be cuda_backend or emulated_backend; the build system of cuda/ sets it."
#endif
#define EVERGRAD_JOIN_(a, b) a##b
#define EVERGRAD_JOIN(a, b) EVERGRAD_JOIN_(a, b)
#define EVERGRAD_IS_CUDA_cuda_backend 1
#define EVERGRAD_IS_CUDA_emulated_backend 0
/// 1 where the wrappers belong to the CUDA backend, 0 for the emulated device.
#define EVERGRAD_IS_CUDA EVERGRAD_JOIN(EVERGRAD_IS_CUDA_, EVERGRAD_BACKEND)

#if EVERGRAD_IS_CUDA
#include <cuda_runtime.h>
#if defined(__CUDACC__)
#include <cooperative_groups.h>
#endif
#define EVERGRAD_SITE_PARAMETERS
#define EVERGRAD_SITE_ONLY
#define EVERGRAD_SITE
#else
#include "cuda/emulated/words.h"
#endif

/// Defined where kernels can be compiled: under nvcc, and always for the emulated device.
#if defined(__CUDACC__) || !EVERGRAD_IS_CUDA
#define EVERGRAD_HAS_DEVICE_WORDS 1
#endif

/// Before a loop whose trip count the compiler knows: no loop is left of it, so that arrays indexed in it stay in
/// registers. EVERGRAD_NO_UNROLL: the loop stays one, where copies of its body would need more registers than there are.
#if defined(__CUDACC__)
#define EVERGRAD_UNROLL _Pragma("unroll")
#define EVERGRAD_NO_UNROLL _Pragma("unroll 1")
#else
#define EVERGRAD_UNROLL _Pragma("GCC unroll 64")
#define EVERGRAD_NO_UNROLL
#endif

namespace eg::EVERGRAD_BACKEND {

inline constexpr unsigned kFullMask = 0xffffffffu;
inline constexpr int kWarp = 32;

template <class T>
EVERGRAD_HD constexpr T min_of(T a, T b) {
  return b < a ? b : a;
}
template <class T>
EVERGRAD_HD constexpr T max_of(T a, T b) {
  return a < b ? b : a;
}
template <class T>
EVERGRAD_HD constexpr T ceil_div(T a, T b) {
  return T((a + b - 1) / b);
}

/// N values that travel in one memory instruction. may_alias: it reads memory that holds plain T.
template <class T, int N>
struct [[gnu::may_alias]] alignas(sizeof(T) * N) Vec {
  T v[N];
};

#if EVERGRAD_HAS_DEVICE_WORDS

// ---- conversions and cheap arithmetic -------------------------------------------------------------------------------

/// Rounds to nearest even; NaN becomes 0x7fff on both sides.
__device__ __forceinline__ bf16 to_bf16(float x) {
#if defined(__CUDA_ARCH__)
  bf16 out;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
  return out;
#else
  return bf16(x);
#endif
}
/// Two bf16 in one register, `low` in the low half: the operand layout of the tensor cores.
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
#if defined(__CUDA_ARCH__)
  std::uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
#else
  return std::uint32_t(bf16(low).bits) | std::uint32_t(bf16(high).bits) << 16;
#endif
}
__device__ __forceinline__ void unpack_bf16(std::uint32_t packed, float& low, float& high) {
  low = __builtin_bit_cast(float, packed << 16);
  high = __builtin_bit_cast(float, packed & 0xffff0000u);
}

__device__ __forceinline__ float load_as_float(const float* p) { return *p; }
__device__ __forceinline__ float load_as_float(const bf16* p) { return float(*p); }
__device__ __forceinline__ void store_from_float(float* p, float x) { *p = x; }
__device__ __forceinline__ void store_from_float(bf16* p, float x) { *p = to_bf16(x); }
__device__ __forceinline__ float as_float(float x) { return x; }
__device__ __forceinline__ float as_float(bf16 x) { return float(x); }
/// convert_from_float<T>(x): x as T, for code that is a template over float and bf16.
template <class T>
__device__ __forceinline__ T convert_from_float(float x) {
  if constexpr (std::is_same_v<T, bf16>)
    return to_bf16(x);
  else
    return T(x);
}

// Approximate on the GPU (about 2 ulp, subnormals flushed), exact to rounding on the host: never compare their bits.
__device__ __forceinline__ float exp2_fast(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}
__device__ __forceinline__ float log2_fast(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return log2f(x);
#endif
}
__device__ __forceinline__ float rsqrt_fast(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / sqrtf(x);
#endif
}
__device__ __forceinline__ float reciprocal_fast(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}
__device__ __forceinline__ float divide_fast(float a, float b) { return a * reciprocal_fast(b); }
__device__ __forceinline__ float exp_fast(float x) { return exp2_fast(x * 1.44269504f); }

// threadIdx.x and so on, read anew at each use: what is computed from them inside a loop is computed there, and does not
// occupy registers all the way through.
#if defined(__CUDA_ARCH__)
#define EVERGRAD_REREAD(name, special, value)             \
  __device__ __forceinline__ int name() {                 \
    int x;                                                \
    asm volatile("mov.u32 %0, %%" special ";" : "=r"(x)); \
    return x;                                             \
  }
#else
#define EVERGRAD_REREAD(name, special, value) \
  __device__ __forceinline__ int name() { return int(value); }
#endif
EVERGRAD_REREAD(reread_thread_x, "tid.x", threadIdx.x)
EVERGRAD_REREAD(reread_threads_x, "ntid.x", blockDim.x)
EVERGRAD_REREAD(reread_block_x, "ctaid.x", blockIdx.x)
EVERGRAD_REREAD(reread_blocks_x, "nctaid.x", gridDim.x)
EVERGRAD_REREAD(reread_block_y, "ctaid.y", blockIdx.y)
#undef EVERGRAD_REREAD

// ---- shared memory --------------------------------------------------------------------------------------------------

/// The shared memory given at the launch, seen as one struct. One such struct per kernel.
template <class T>
__device__ __forceinline__ T& dynamic_shared(EVERGRAD_SITE_ONLY) {
  static_assert(std::is_trivially_default_constructible_v<T> && std::is_trivially_destructible_v<T>,
                "shared memory is not constructed: use a struct without member initialisers");
#if defined(__CUDACC__)
  extern __shared__ __align__(1024) unsigned char evergrad_dynamic_shared[];  // as wgmma's panels need it
  return *reinterpret_cast<T*>(evergrad_dynamic_shared);
#else
  return *static_cast<T*>(eg::emulated::dynamic_shared(sizeof(T), alignof(T), file, line));
#endif
}

#if !defined(__CUDACC__)
template <class T, int Tag>
inline constexpr char kStaticSharedKey = 0;
#endif

/// Shared memory of a size known to the compiler. The same (T, Tag) in one kernel is the same storage.
template <class T, int Tag = 0>
__device__ __forceinline__ T& static_shared(EVERGRAD_SITE_ONLY) {
  static_assert(std::is_trivially_default_constructible_v<T> && std::is_trivially_destructible_v<T>,
                "shared memory is not constructed: use a struct without member initialisers");
#if defined(__CUDACC__)
  __shared__ T storage;
  return storage;
#else
  return *static_cast<T*>(eg::emulated::static_shared(&kStaticSharedKey<T, Tag>, sizeof(T), alignof(T), file, line));
#endif
}

// ---- sums over a warp and over a block ------------------------------------------------------------------------------

/// Sum over all 32 lanes in a fixed xor tree; every lane gets the same bits. float or double.
template <class T>
__device__ __forceinline__ T warp_sum(T v EVERGRAD_SITE_PARAMETERS) {
#if defined(__CUDACC__)
  EVERGRAD_UNROLL
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kFullMask, v, offset);
  return v;
#else
  return eg::emulated::warp_reduce(v, false, file, line);
#endif
}
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }
template <class T>
__device__ __forceinline__ T warp_max(T v EVERGRAD_SITE_PARAMETERS) {
#if defined(__CUDACC__)
  EVERGRAD_UNROLL
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v = larger(v, __shfl_xor_sync(kFullMask, v, offset));
  return v;
#else
  return eg::emulated::warp_reduce(v, true, file, line);
#endif
}

template <class T, int N>
struct BlockPartials {
  T v[N];
};
/// Sum over the whole block (kThreads threads, a multiple of 32; one dimension), in a fixed order; every thread gets
/// it. Contains two barriers. Two different sums between which no barrier stands need two tags only if they
/// interleave; calls one after another may share one.
template <int kThreads, int Tag = 0, class T>
__device__ __forceinline__ T block_sum(T v EVERGRAD_SITE_PARAMETERS) {
  static_assert(kThreads % kWarp == 0 && kThreads <= 1024, "a block is a whole number of warps");
  v = warp_sum(v EVERGRAD_SITE);
  if constexpr (kThreads > kWarp) {
    constexpr int kWarps = kThreads / kWarp;
#if defined(__CUDACC__)
    BlockPartials<T, kWarps>& partial = static_shared<BlockPartials<T, kWarps>, Tag>();
#define EVERGRAD_BLOCK_BARRIER __syncthreads()
#else
    BlockPartials<T, kWarps>& partial = static_shared<BlockPartials<T, kWarps>, Tag>(file, line);
#define EVERGRAD_BLOCK_BARRIER __syncthreads(file, line)
#endif
    if (threadIdx.x % kWarp == 0) partial.v[threadIdx.x / kWarp] = v;
    EVERGRAD_BLOCK_BARRIER;
    T total = partial.v[0];
    EVERGRAD_UNROLL
    for (int w = 1; w < kWarps; ++w) total += partial.v[w];
    EVERGRAD_BLOCK_BARRIER;  // the next call may overwrite the partial sums
#undef EVERGRAD_BLOCK_BARRIER
    v = total;
  }
  return v;
}

// ---- wide memory access ---------------------------------------------------------------------------------------------

/// One 2- to 16-byte load; p must be aligned to the whole vector (a GPU traps otherwise, and so does the emulator).
template <class V, class T>
__device__ __forceinline__ V load_vec(const T* p EVERGRAD_SITE_PARAMETERS) {
  static_assert(sizeof(V) <= 16 && sizeof(V) % sizeof(T) == 0, "a vector access moves at most 16 bytes");
#if !defined(__CUDACC__)
  eg::emulated::check_vector(p, sizeof(V), false, file, line);
#endif
  return *reinterpret_cast<const V*>(p);
}
template <class T, int N>
__device__ __forceinline__ void store_vec(T* p, const Vec<T, N>& value EVERGRAD_SITE_PARAMETERS) {
  static_assert(sizeof(value) <= 16, "a vector access moves at most 16 bytes");
#if !defined(__CUDACC__)
  eg::emulated::check_vector(p, sizeof(value), true, file, line);
#endif
  *reinterpret_cast<Vec<T, N>*>(p) = value;
}

// ---- asynchronous copies (Ampere): 16 bytes from global to shared memory, in groups ---------------------------------

#if defined(__CUDACC__)
__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return std::uint32_t(__cvta_generic_to_shared(p));
}
#endif
/// Starts a copy; when !valid, zeros are written and the source is not read (it may be out of range, not misaligned).
__device__ __forceinline__ void cp_async_16(void* shared, const void* global,
                                            bool valid = true EVERGRAD_SITE_PARAMETERS) {
#if defined(__CUDACC__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
#else
  eg::emulated::cp_async(shared, global, valid, file, line);
#endif
}
__device__ __forceinline__ void cp_async_commit(EVERGRAD_SITE_ONLY) {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  eg::emulated::cp_async_commit(file, line);
#endif
}
/// Waits until at most N of this thread's committed groups are in flight. A barrier makes the bytes visible to others.
template <int N>
__device__ __forceinline__ void cp_async_wait(EVERGRAD_SITE_ONLY) {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
  eg::emulated::cp_async_wait(N, file, line);
#endif
}

// ---- tensor cores: 8x8 matrices of bf16 from shared memory, and D += A B on 16x8x16 tiles ---------------------------
// Lane l gives the address of row l % 8 of matrix l / 8 (x2: lanes 0 to 15), 16-byte aligned, and receives, of each
// matrix, the two values at row l / 4, columns 2 (l % 4) and 2 (l % 4) + 1; `_trans` hands out the transposed matrix.

#if defined(__CUDACC__)
#define EVERGRAD_LDMATRIX_X4(name, suffix)                                                    \
  __device__ __forceinline__ void name(std::uint32_t(&r)[4], const bf16* row) {               \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" suffix ".shared.b16 {%0, %1, %2, %3}, [%4];" \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                             \
                 : "r"(shared_address(row))                                                   \
                 : "memory");                                                                 \
  }
#define EVERGRAD_LDMATRIX_X2(name, suffix)                                            \
  __device__ __forceinline__ void name(std::uint32_t(&r)[2], const bf16* row) {       \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2" suffix ".shared.b16 {%0, %1}, [%2];" \
                 : "=r"(r[0]), "=r"(r[1])                                             \
                 : "r"(shared_address(row))                                           \
                 : "memory");                                                         \
  }
EVERGRAD_LDMATRIX_X4(ldmatrix_x4, "")
EVERGRAD_LDMATRIX_X4(ldmatrix_x4_trans, ".trans")
EVERGRAD_LDMATRIX_X2(ldmatrix_x2, "")
EVERGRAD_LDMATRIX_X2(ldmatrix_x2_trans, ".trans")
#undef EVERGRAD_LDMATRIX_X4
#undef EVERGRAD_LDMATRIX_X2
#else
__forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const bf16* row EVERGRAD_SITE_PARAMETERS) {
  eg::emulated::load_matrix(r, 4, false, row, file, line);
}
__forceinline__ void ldmatrix_x4_trans(std::uint32_t (&r)[4], const bf16* row EVERGRAD_SITE_PARAMETERS) {
  eg::emulated::load_matrix(r, 4, true, row, file, line);
}
__forceinline__ void ldmatrix_x2(std::uint32_t (&r)[2], const bf16* row EVERGRAD_SITE_PARAMETERS) {
  eg::emulated::load_matrix(r, 2, false, row, file, line);
}
__forceinline__ void ldmatrix_x2_trans(std::uint32_t (&r)[2], const bf16* row EVERGRAD_SITE_PARAMETERS) {
  eg::emulated::load_matrix(r, 2, true, row, file, line);
}
#endif

/// d += a b, bf16 operands, fp32 sums: A is 16x16 (row), B 16x8 (column), D 16x8. With g = lane / 4, t = lane % 4:
///   a[0] = A[g][2t, 2t+1]  a[1] = A[g+8][2t, 2t+1]  a[2] = A[g][2t+8, 2t+9]  a[3] = A[g+8][2t+8, 2t+9]
///   b[0] = B[2t, 2t+1][g]  b[1] = B[2t+8, 2t+9][g]  d[0], d[1] = D[g][2t, 2t+1]  d[2], d[3] = D[g+8][2t, 2t+1]
__device__ __forceinline__ void mma_16816(float (&d)[4], const std::uint32_t (&a)[4],
                                          const std::uint32_t (&b)[2] EVERGRAD_SITE_PARAMETERS) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  eg::emulated::mma_16816(d, a, b, file, line);
#endif
}

/// All threads of all blocks of a cooperative launch (launch_cooperative) wait for each other, and see what the others
/// have written. Where one block can do the rest alone, a ticket for the last block costs less.
__device__ __forceinline__ void grid_barrier(EVERGRAD_SITE_ONLY) {
#if defined(__CUDACC__)
  cooperative_groups::this_grid().sync();
#else
  eg::emulated::grid_barrier(file, line);
#endif
}

/// Lets others run inside a loop that waits for what another thread writes (a yield here, a short sleep there).
__device__ __forceinline__ void spin_pause(EVERGRAD_SITE_ONLY) {
#if defined(__CUDACC__)
  __nanosleep(100);
#else
  eg::emulated::pause_fiber(file, line);
#endif
}

#endif  // EVERGRAD_HAS_DEVICE_WORDS

}  // namespace eg::EVERGRAD_BACKEND
