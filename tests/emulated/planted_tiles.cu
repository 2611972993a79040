// tests/emulated/planted_tiles.cu - mistakes with tiles in shared memory: asynchronous copies, matrix loads, layouts,
// the mask of the last tile; see planted.h.
#include "tests/emulated/planted.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// Every fourth thread copies 16 bytes: together the 64 floats of `from` into a stage.
__device__ __forceinline__ void copy_stage(float* stage, const float* from, int t) {
  if (t % 4 == 0) cp_async_16(stage + t, from + t);
  cp_async_commit();
}

/// Where the 16-byte half `half` of a row stands when both halves change places in every other pair of rows.
__device__ __forceinline__ int swizzled(int row, int half) { return half ^ (row / 2 % 2); }

/// Of the matrix as ldmatrix hands it out, one value of the first quarter and 1000 times one of the last.
__device__ __forceinline__ float two_of(const std::uint32_t (&r)[4]) {
  float low, high, unused;
  unpack_bf16(r[0], low, unused);
  unpack_bf16(r[3], unused, high);
  return low + 1000.0f * high;
}

template <Bug kBug, bool kFixed>
__global__ void __launch_bounds__(kPlantedThreads) planted_tiles_device(const PlantedParams p) {
  const int t = int(threadIdx.x), lane = t % kWarp;
  const std::int64_t first = std::int64_t(blockIdx.x) * kPlantedThreads;
  PlantedTiles& s = dynamic_shared<PlantedTiles>();
  const float* const in = p.in + first;
  const float mine = in[t];
  float result = mine;
  if constexpr (kBug == Bug::copy_not_waited_for || kBug == Bug::copy_without_barrier) {
    constexpr bool kWait = kFixed || kBug == Bug::copy_without_barrier,
                   kBarrier = kFixed || kBug == Bug::copy_not_waited_for;
    copy_stage(s.stage[0], in, t);
    if (kWait) cp_async_wait<0>();
    if (kBarrier) __syncthreads();
    result = s.stage[0][kPlantedThreads - 1 - t];
    if (!kWait) cp_async_wait<0>();
  } else if constexpr (kBug == Bug::copy_waited_too_little) {
    copy_stage(s.stage[0], in, t);
    copy_stage(s.stage[1], in, t);
    cp_async_wait<kFixed ? 0 : 1>();
    __syncthreads();
    result = s.stage[0][kPlantedThreads - 1 - t] + s.stage[1][kPlantedThreads - 1 - t];
    cp_async_wait<0>();
  } else if constexpr (kBug == Bug::copy_left_in_flight) {
    copy_stage(s.stage[0], in, t);
    if (kFixed) cp_async_wait<0>();
  } else if constexpr (kBug == Bug::misaligned_copy) {
    if (t == 0) cp_async_16(s.stage[0], in + (kFixed ? 4 : 1));
    cp_async_commit();
    cp_async_wait<0>();
  } else if constexpr (kBug == Bug::prefetch_into_live_stage) {
    constexpr int kStages = kFixed ? 2 : 1;
    result = 0.0f;
    copy_stage(s.stage[0], in, t);
    for (int round = 0; round < kPlantedRounds; ++round) {
      cp_async_wait<0>();
      __syncthreads();  // the stage is there for all, and all are through with the one before
      if (round + 1 < kPlantedRounds)
        copy_stage(s.stage[(round + 1) % kStages], p.in + (first + std::int64_t(round + 1) * kPlantedThreads) % p.n, t);
      result += s.stage[round % kStages][kPlantedThreads - 1 - t];
    }
  } else if constexpr (kBug == Bug::tail_mask_off_by_one) {
    const int keys = kPlantedKeys - 1 + p.one;
    s.stage[0][t] = t < keys ? -1.0f - mine : 0.0f;  // what is loaded beyond the last key is zero, as by cp_async_16
    __syncthreads();
    result = -1e30f;
    for (int k = 0; k < kPlantedThreads; ++k)
      if (kFixed ? k < keys : k <= keys) result = max_of(result, s.stage[0][k]);
  } else {  // the words that hand out matrices
    constexpr bool kSwizzled = kBug == Bug::swizzle_on_one_side;
    for (int e = 4 * t; e < 4 * t + 4; ++e) {
      const int row = e / 16, half = e / 8 % 2;
      s.matrix[row][8 * (kSwizzled ? swizzled(row, half) : half) + e % 8] = to_bf16(float(e));
    }
    __syncthreads();
    if (kBug == Bug::matrix_load_by_some_lanes && !kFixed && lane == 31) return;
    const int row = lane % 16, half = lane / 16, place = kSwizzled && kFixed ? swizzled(row, half) : half;
    const bf16* const from = &s.matrix[row][8 * place] + (kBug == Bug::misaligned_matrix_row && !kFixed);
    std::uint32_t r[4];
    if constexpr (kBug == Bug::dropped_trans && kFixed)
      ldmatrix_x4_trans(r, from);
    else
      ldmatrix_x4(r, from);
    result = two_of(r);
  }
  p.out[first + t] = result;
}

template <bool kFixed>
PlantedKernel pick(Bug bug) {
  switch (bug) {
#define EVERGRAD_PICK(name) \
  case Bug::name: return &planted_tiles_device<Bug::name, kFixed>;
    EVERGRAD_PICK(copy_not_waited_for)
    EVERGRAD_PICK(copy_waited_too_little)
    EVERGRAD_PICK(copy_without_barrier)
    EVERGRAD_PICK(copy_left_in_flight)
    EVERGRAD_PICK(misaligned_copy)
    EVERGRAD_PICK(prefetch_into_live_stage)
    EVERGRAD_PICK(tail_mask_off_by_one)
    EVERGRAD_PICK(dropped_trans)
    EVERGRAD_PICK(swizzle_on_one_side)
    EVERGRAD_PICK(matrix_load_by_some_lanes)
    EVERGRAD_PICK(misaligned_matrix_row)
#undef EVERGRAD_PICK
    default: return nullptr;
  }
}

}  // namespace

PlantedKernel planted_tiles_kernel(Bug bug, bool fixed) { return fixed ? pick<true>(bug) : pick<false>(bug); }

}  // namespace eg::EVERGRAD_BACKEND
