// cuda/emulated/words.h - the words of CUDA for the host compiler, without any CUDA header.
//
// Every collective ends in two defaulted arguments that the compiler fills with the place of the call: that is where
// the file and line of an error message come from. All work is done by uninstrumented functions of namespace
// eg::emulated, because this header is compiled into kernel files, and those are instrumented in the asan and race
// builds.
#pragma once
#include <math.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#if defined(__OPTIMIZE__)
#define __forceinline__ inline __attribute__((always_inline))
#else
#define __forceinline__ inline  // a debugger can step into it
#endif

// The place of the call, for a function that has arguments already; and the same passed on to an inner word.
#define EVERGRAD_SITE_PARAMETERS , const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define EVERGRAD_SITE_ONLY const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define EVERGRAD_SITE , file, line

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

// Real variables, rewritten at every switch of fibers, so that a debugger prints them. constinit: no wrapper function.
extern constinit thread_local uint3 threadIdx;
extern constinit thread_local uint3 blockIdx;
extern constinit thread_local dim3 blockDim;
extern constinit thread_local dim3 gridDim;

namespace eg::emulated {

enum class Shuffle : int { index, up, down, exclusive_or };
enum class Vote : int { ballot, any, all };

void barrier(const char* file, int line);
void grid_barrier(const char* file, int line);
void sync_warp(unsigned mask, const char* file, int line);
std::uint64_t shuffle(Shuffle kind, unsigned mask, std::uint64_t bits, int argument, int width, const char* file,
                      int line);
unsigned vote(Vote kind, unsigned mask, bool predicate, const char* file, int line);
/// The xor tree over all 32 lanes, offsets 16 to 1, in one meeting instead of five: the same bits.
float warp_reduce(float v, bool maximum, const char* file, int line);
double warp_reduce(double v, bool maximum, const char* file, int line);
void fence() noexcept;
void pause_fiber(const char* file, int line);

enum class Atomic : int { add, exchange, maximum_unsigned, maximum_int };
unsigned atomic(Atomic op, unsigned* address, unsigned value, const char* file, int line);

void* dynamic_shared(std::size_t bytes, std::size_t alignment, const char* file, int line);
/// `key` names one (type, tag); the first thread of a block that asks makes the storage.
void* static_shared(const void* key, std::size_t bytes, std::size_t alignment, const char* file, int line);

void check_vector(const void* address, std::size_t bytes, bool is_store, const char* file, int line);
void cp_async(void* to_shared, const void* from_global, bool valid, const char* file, int line);
void cp_async_commit(const char* file, int line);
void cp_async_wait(int still_in_flight, const char* file, int line);
/// `count` 8x8 matrices of 16-bit values; `row` is the row address that this lane gives.
void load_matrix(std::uint32_t* registers, int count, bool transposed, const void* row, const char* file, int line);
void mma_16816(float* d, const std::uint32_t* a, const std::uint32_t* b, const char* file, int line);

// Products of a warpgroup (cuda/wgmma.cuh, warpgroup.cpp).
/// Offset in the block's shared memory, as the address of a GPU's shared window.
std::uint32_t shared_address(const void* p, const char* file, int line);
void fence_for_products(const char* file, int line);
void warpgroup_fence(const char* file, int line);
void warpgroup_commit(const char* file, int line);
void warpgroup_wait(int still_in_flight, const char* file, int line);
void warpgroup_mma(float* d, int cols, std::uint64_t a, bool a_transposed, std::uint64_t b, bool b_transposed, bool add,
                   const char* file, int line);

// Bits of 4- or 8-byte values. A shuffle of anything else is a mistake on the GPU too.
template <class T>
__forceinline__ std::uint64_t to_bits(T v) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  if constexpr (sizeof(T) == 4)
    return __builtin_bit_cast(std::uint32_t, v);
  else
    return __builtin_bit_cast(std::uint64_t, v);
}
template <class T>
__forceinline__ T from_bits(std::uint64_t bits) {
  if constexpr (sizeof(T) == 4)
    return __builtin_bit_cast(T, std::uint32_t(bits));
  else
    return __builtin_bit_cast(T, bits);
}

}  // namespace eg::emulated

__forceinline__ void __syncthreads(EVERGRAD_SITE_ONLY) { eg::emulated::barrier(file, line); }
__forceinline__ void __syncwarp(unsigned mask = 0xffffffffu EVERGRAD_SITE_PARAMETERS) {
  eg::emulated::sync_warp(mask, file, line);
}
__forceinline__ void __threadfence() { eg::emulated::fence(); }

template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T v, int lane, int width = 32 EVERGRAD_SITE_PARAMETERS) {
  using namespace eg::emulated;
  return from_bits<T>(shuffle(Shuffle::index, mask, to_bits(v), lane, width, file, line));
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32 EVERGRAD_SITE_PARAMETERS) {
  using namespace eg::emulated;
  return from_bits<T>(shuffle(Shuffle::up, mask, to_bits(v), int(delta), width, file, line));
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32 EVERGRAD_SITE_PARAMETERS) {
  using namespace eg::emulated;
  return from_bits<T>(shuffle(Shuffle::down, mask, to_bits(v), int(delta), width, file, line));
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T v, int lane_mask, int width = 32 EVERGRAD_SITE_PARAMETERS) {
  using namespace eg::emulated;
  return from_bits<T>(shuffle(Shuffle::exclusive_or, mask, to_bits(v), lane_mask, width, file, line));
}
__forceinline__ unsigned __ballot_sync(unsigned mask, int predicate EVERGRAD_SITE_PARAMETERS) {
  return eg::emulated::vote(eg::emulated::Vote::ballot, mask, predicate != 0, file, line);
}
__forceinline__ int __any_sync(unsigned mask, int predicate EVERGRAD_SITE_PARAMETERS) {
  return int(eg::emulated::vote(eg::emulated::Vote::any, mask, predicate != 0, file, line));
}
__forceinline__ int __all_sync(unsigned mask, int predicate EVERGRAD_SITE_PARAMETERS) {
  return int(eg::emulated::vote(eg::emulated::Vote::all, mask, predicate != 0, file, line));
}

__forceinline__ unsigned atomicAdd(unsigned* address, unsigned value EVERGRAD_SITE_PARAMETERS) {
  return eg::emulated::atomic(eg::emulated::Atomic::add, address, value, file, line);
}
__forceinline__ unsigned atomicExch(unsigned* address, unsigned value EVERGRAD_SITE_PARAMETERS) {
  return eg::emulated::atomic(eg::emulated::Atomic::exchange, address, value, file, line);
}
__forceinline__ unsigned atomicMax(unsigned* address, unsigned value EVERGRAD_SITE_PARAMETERS) {
  return eg::emulated::atomic(eg::emulated::Atomic::maximum_unsigned, address, value, file, line);
}
__forceinline__ int atomicMax(int* address, int value EVERGRAD_SITE_PARAMETERS) {
  return int(eg::emulated::atomic(eg::emulated::Atomic::maximum_int, reinterpret_cast<unsigned*>(address),
                                  unsigned(value), file, line));
}

__forceinline__ int __popc(unsigned x) { return __builtin_popcount(x); }
__forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
__forceinline__ int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
__forceinline__ float rsqrtf(float x) { return 1.0f / sqrtf(x); }
__forceinline__ double rsqrt(double x) { return 1.0 / sqrt(x); }
