// cuda/wgmma.cuh - Hopper's products of a warpgroup: four warps multiply two tiles of shared memory, asynchronously.
//
// A second vocabulary beside simt.cuh, for kernels that exist only for GPUs of compute capability 9.0: under nvcc for any
// other the words stop the kernel, and the wrapper must not launch it there (warpgroup_products() in kernels/kernels.h).
//
// The order of a use: copies land (cp_async_wait), fence_for_products(), a barrier; then warpgroup_fence(), any number of
// warpgroup_mma(), warpgroup_commit(). Until warpgroup_wait() has waited for the group, its operands must stay as they are
// and its sums may not be touched. Every word is for all 128 threads of four warps, the first of them a multiple of four.
//
// An operand lies in panels: rows of 64 bf16, 128 bytes, whose eight 16-byte pieces are permuted by an exclusive or with
// the row (PTX ISA, "128B swizzling"). Along a row run either the depth (K-major) or, transposed, rows of a or columns of b
// (MN-major); then 64 of those make a panel, and further panels follow. Panels begin at multiples of 1,024 bytes.
#pragma once
#include "cuda/simt.cuh"

namespace eg::EVERGRAD_BACKEND {

inline constexpr int kWarpgroup = 128;    // threads
inline constexpr int kPanelWidth = 64;    // bf16 of a panel's row
inline constexpr int kPanelAlign = 1024;  // bytes: eight rows, after which the permutation repeats
inline constexpr int kProductDepth = 16;  // of one product
inline constexpr int kProductRows = 64;

#if EVERGRAD_HAS_DEVICE_WORDS

/// Where value `column` of a panel's row lies, in values from the panel's begin.
__device__ __forceinline__ int panel_at(int row, int column) {
  return row * kPanelWidth + ((column / 8 ^ (row & 7)) * 8) + column % 8;
}

// Only code for sm_90a has these instructions ("a": its own features); elsewhere there is no way on.
#if defined(__CUDACC__)
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define EVERGRAD_HOPPER(...) asm volatile(__VA_ARGS__)
#else
#define EVERGRAD_HOPPER(...) __trap()
#endif
#endif

/// The shared memory that this thread wrote may now be read by products, once a barrier is passed. (The emulated device asks for it
/// behind asynchronous copies; stores it does not see.)
__device__ __forceinline__ void fence_for_products(EVERGRAD_SITE_ONLY) {
#if defined(__CUDACC__)
  EVERGRAD_HOPPER("fence.proxy.async.shared::cta;" ::: "memory");
#else
  eg::emulated::fence_for_products(file, line);
#endif
}
/// Before the first product of a group: the sums in registers are as this thread left them.
__device__ __forceinline__ void warpgroup_fence(EVERGRAD_SITE_ONLY) {
#if defined(__CUDACC__)
  EVERGRAD_HOPPER("wgmma.fence.sync.aligned;" ::: "memory");
#else
  eg::emulated::warpgroup_fence(file, line);
#endif
}
__device__ __forceinline__ void warpgroup_commit(EVERGRAD_SITE_ONLY) {
#if defined(__CUDACC__)
  EVERGRAD_HOPPER("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  eg::emulated::warpgroup_commit(file, line);
#endif
}
/// Waits until at most N committed groups are in flight.
template <int N>
__device__ __forceinline__ void warpgroup_wait(EVERGRAD_SITE_ONLY) {
#if defined(__CUDACC__)
  EVERGRAD_HOPPER("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#else
  eg::emulated::warpgroup_wait(N, file, line);
#endif
}

/// Where an operand begins. `panel_bytes`: to the next panel, where there are several (MN-major), else 16 (PTX ISA, "matrix
/// descriptor": begin, distance of panels, distance of eight rows, all in 16 bytes; 1 in the highest bits for 128-byte
/// swizzling).
__device__ __forceinline__ std::uint64_t panel_descriptor(const bf16* begin, int panel_bytes EVERGRAD_SITE_PARAMETERS) {
#if defined(__CUDACC__)
  const std::uint64_t address = shared_address(begin);
#else
  const std::uint64_t address = eg::emulated::shared_address(begin, file, line);
#endif
  return (address & 0x3ffff) >> 4 | std::uint64_t(panel_bytes >> 4) << 16 | std::uint64_t(kPanelAlign >> 4) << 32 |
         std::uint64_t(1) << 62;
}

/// d = a b, or d += a b, on 64 x kCols outputs, 16 deep. Thread t of the warpgroup has, for j and e, row 16 (t / 32) +
/// t % 32 / 4 + 8 (e / 2) and column 8 j + 2 (t % 4) + e % 2 in d[4 j + e]: as mma_16816.
/// kTransA, kTransB: the operand's panels are MN-major.
template <int kCols, bool kTransA, bool kTransB>
__device__ __forceinline__ void warpgroup_mma(float (&d)[kCols / 2], std::uint64_t a, std::uint64_t b,
                                              bool add EVERGRAD_SITE_PARAMETERS) {
  static_assert(kCols == 128 || kCols == 256, "two widths are written out below");
#if defined(__CUDACC__)
#define EVERGRAD_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define EVERGRAD_D16(i) EVERGRAD_D4(i), EVERGRAD_D4(i + 4), EVERGRAD_D4(i + 8), EVERGRAD_D4(i + 12)
#define EVERGRAD_D64(i) EVERGRAD_D16(i), EVERGRAD_D16(i + 16), EVERGRAD_D16(i + 32), EVERGRAD_D16(i + 48)
#define EVERGRAD_NAMES_64                                                                           \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, " \
  "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, " \
  "%59, %60, %61, %62, %63"
#define EVERGRAD_NAMES_128                                                                            \
  EVERGRAD_NAMES_64                                                                                   \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, " \
  "%83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, " \
  "%102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, "  \
  "%118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
  // After the sums and both descriptors: whether to add to d, signs of a and b, whether each is transposed.
  if constexpr (kCols == 128)
    EVERGRAD_HOPPER(
        "{.reg .pred add; setp.ne.b32 add, %68, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" EVERGRAD_NAMES_64 "}, %64, %65, add, 1, 1, %66, %67;}"
        : EVERGRAD_D64(0)
        : "l"(a), "l"(b), "n"(int(kTransA)), "n"(int(kTransB)), "r"(int(add)));
  else
    EVERGRAD_HOPPER(
        "{.reg .pred add; setp.ne.b32 add, %132, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" EVERGRAD_NAMES_128
        "}, %128, %129, add, 1, 1, %130, %131;}"
        : EVERGRAD_D64(0), EVERGRAD_D64(64)
        : "l"(a), "l"(b), "n"(int(kTransA)), "n"(int(kTransB)), "r"(int(add)));
#undef EVERGRAD_D4
#undef EVERGRAD_D16
#undef EVERGRAD_D64
#undef EVERGRAD_NAMES_64
#undef EVERGRAD_NAMES_128
#else
  eg::emulated::warpgroup_mma(d, kCols, a, kTransA, b, kTransB, add, file, line);
#endif
}
#undef EVERGRAD_HOPPER

#endif  // EVERGRAD_HAS_DEVICE_WORDS

}  // namespace eg::EVERGRAD_BACKEND
