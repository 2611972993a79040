// tests/emulated/planted.h - kernels with one mistake each, and their clean twins.
#pragma once
#include "cuda/simt.cuh"

namespace eg::EVERGRAD_BACKEND {

enum class Bug : int {
  shared_write_outside,
  shared_read_outside,
  shared_never_written,
  global_write_outside,
  global_read_outside,
  load_guard_off_by_one,
  store_guard_off_by_one,
  freed_memory,
  no_barrier_before_read,
  no_barrier_writer_first,
  no_barrier_before_reuse,
  no_warp_barrier,
  shuffle_as_fence,
  divergent_barrier,
  half_barrier,
  exit_before_barrier,
  shuffle_with_exited_lane,
  shuffle_outside_its_mask,
  shuffle_reads_outside_mask,
  shuffles_at_two_places,
  shuffle_against_barrier,
  mma_by_some_lanes,
  matrix_load_by_some_lanes,
  misaligned_vector,
  misaligned_store,
  misaligned_copy,
  misaligned_matrix_row,
  too_little_shared,
  copy_not_waited_for,
  copy_waited_too_little,
  copy_without_barrier,
  copy_left_in_flight,
  prefetch_into_live_stage,
  tail_mask_off_by_one,
  dropped_trans,
  swizzle_on_one_side,
  two_blocks_one_place,
  two_blocks_one_partial,
  no_fence_before_ticket,
  no_fence_after_ticket,
  no_barrier_before_ticket,
  no_barrier_after_ticket,
  ticket_not_reset,
  no_grid_barrier,
  no_second_grid_barrier,
  deserted_grid_barrier,
  half_grid_barrier,
  divergent_grid_barrier,
  fault_behind_grid_barrier,
  grid_barrier_of_ordinary_launch,
  waits_for_another_block,
  null_pointer_in_parameters,
  host_pointer_in_parameters,
  local_of_another_thread,
  shift_too_far
};

/// 64 threads a block write out[block * 64 + thread]; what is right is in expected().
struct PlantedParams {
  const float* in;  // n floats, in[i] = i
  float* out;       // n floats
  float* partials;  // one per block, and their sum, for the ticket kernels
  float* rows;      // n floats, and
  float* totals;    // 64: over the blocks' rows, by the last block of some ticket kernels
  unsigned* ticket;
  const float* nothing;  // null
  const float* host;     // a pointer to host memory
  const float* freed;    // n floats that were given back
  std::int64_t n;
  int one;  // 1, unknown to the compiler
};
using PlantedKernel = void (*)(PlantedParams);
PlantedKernel planted_kernel(Bug bug, bool fixed);
PlantedKernel planted_tiles_kernel(Bug bug, bool fixed);   // planted_tiles.cu; null when the mistake is not one of its
PlantedKernel planted_blocks_kernel(Bug bug, bool fixed);  // planted_blocks.cu; the same
/// True when the kernel must be launched by launch_cooperative().
inline bool planted_cooperative(Bug bug, bool fixed) {
  return bug >= Bug::no_grid_barrier && bug <= Bug::waits_for_another_block &&
         (fixed || (bug != Bug::grid_barrier_of_ordinary_launch && bug != Bug::waits_for_another_block));
}
inline constexpr int kPlantedThreads = 64, kPlantedKeys = 61, kPlantedRounds = 3;
struct PlantedShared {
  alignas(16) float v[kPlantedThreads];
};
/// Of planted_tiles.cu: two stages of a pipeline, and a matrix that holds 16 row + column.
struct PlantedTiles {
  alignas(16) float stage[2][kPlantedThreads];
  alignas(16) bf16 matrix[16][16];
};
/// What out[i] must be in a grid of `blocks`, for in[i] = i.
inline float expected(Bug bug, std::int64_t i, std::int64_t blocks) {
  const std::int64_t t = i % kPlantedThreads, first = i - t, warp = i - i % 32, n = blocks * kPlantedThreads;
  const std::int64_t across = kPlantedThreads - 1 - t, group = i % 32 / 4, pair = 2 * (i % 4);
  switch (bug) {
    case Bug::no_barrier_before_read:
    case Bug::shared_never_written:
    case Bug::copy_not_waited_for:
    case Bug::copy_without_barrier:
    case Bug::divergent_barrier:
    case Bug::half_barrier:
    case Bug::exit_before_barrier: return float(first + across);
    case Bug::no_barrier_writer_first: return float(t == 0 ? i : i - 1);
    case Bug::load_guard_off_by_one: return float(i + 1 < n ? i + 1 : 0);
    case Bug::store_guard_off_by_one: return float(i == 0 ? 0 : i - 1);
    case Bug::no_barrier_before_reuse: return float(3 * (first + across) + 3);
    case Bug::copy_waited_too_little: return float(2 * (first + across));
    case Bug::prefetch_into_live_stage: {
      float sum = 0.0f;
      for (std::int64_t round = 0; round < kPlantedRounds; ++round)
        sum += float((first + round * kPlantedThreads) % n + across);
      return sum;
    }
    case Bug::no_warp_barrier:
    case Bug::shuffle_as_fence: return float(warp + 31 - i % 32);
    case Bug::shuffle_with_exited_lane:
    case Bug::shuffle_outside_its_mask:
    case Bug::shuffle_reads_outside_mask:
    case Bug::shuffles_at_two_places:
    case Bug::shuffle_against_barrier: return float(i ^ 1);
    case Bug::mma_by_some_lanes: return 0.0f;
    case Bug::no_second_grid_barrier: return 3.0f * float((i + kPlantedThreads) % n) + 3.0f;
    case Bug::no_grid_barrier:
    case Bug::deserted_grid_barrier:
    case Bug::half_grid_barrier:
    case Bug::divergent_grid_barrier:
    case Bug::fault_behind_grid_barrier:
    case Bug::grid_barrier_of_ordinary_launch: return float((i + kPlantedThreads) % n);
    case Bug::tail_mask_off_by_one: return -1.0f - float(first);
    // Two values of the matrix, 16 row + column: of its first quarter, and 1000 times one of its last quarter.
    case Bug::dropped_trans: return float(16 * pair + group + 1000 * (16 * (8 + pair + 1) + 8 + group));
    case Bug::matrix_load_by_some_lanes:
    case Bug::misaligned_matrix_row:
    case Bug::swizzle_on_one_side: return float(16 * group + pair + 1000 * (16 * (8 + group) + 8 + pair + 1));
    default: return float(i);
  }
}
/// What partials[blocks] must be; 0 where the kernel leaves it alone.
inline float expected_sum(Bug bug, std::int64_t blocks) {
  const bool sums =
      bug == Bug::no_fence_before_ticket || bug == Bug::ticket_not_reset || bug == Bug::two_blocks_one_partial;
  return sums ? float(blocks * (blocks - 1) / 2) : 0.0f;
}
/// What totals[t] must be; 0 where the kernel leaves it alone.
inline float expected_total(Bug bug, std::int64_t t, std::int64_t blocks) {
  if (bug != Bug::no_fence_after_ticket && bug != Bug::no_barrier_before_ticket && bug != Bug::no_barrier_after_ticket)
    return 0.0f;
  return float(kPlantedThreads * (blocks * (blocks - 1) / 2) + blocks * (kPlantedThreads - 1 - t));
}

}  // namespace eg::EVERGRAD_BACKEND
