// tests/emulated/planted.h - kernels with one mistake each, and their clean twins.
#pragma once
#include "cuda/simt.cuh"

namespace eg::EVERGRAD_BACKEND {

enum class Bug : int {
  shared_write_outside,
  shared_read_outside,
  global_write_outside,
  global_read_outside,
  no_barrier_before_read,
  no_barrier_before_reuse,
  no_warp_barrier,
  shuffle_as_fence,
  divergent_barrier,
  exit_before_barrier,
  shuffle_with_exited_lane,
  shuffle_outside_its_mask,
  shuffle_reads_outside_mask,
  shuffles_at_two_places,
  mma_by_some_lanes,
  misaligned_vector,
  too_little_shared,
  copy_not_waited_for,
  copy_without_barrier,
  two_blocks_one_place,
  no_fence_before_ticket,
  ticket_not_reset,
  host_pointer_in_parameters,
  local_of_another_thread,
  shift_too_far
};

/// 64 threads a block write out[block * 64 + thread]; what is right is in expected().
struct PlantedParams {
  const float* in;  // n floats, in[i] = i
  float* out;       // n floats
  float* partials;  // one per block, for the ticket kernels
  unsigned* ticket;
  const float* host;  // a pointer to host memory
  std::int64_t n;
  int one;  // 1, unknown to the compiler
};
using PlantedKernel = void (*)(PlantedParams);
PlantedKernel planted_kernel(Bug bug, bool fixed);
inline constexpr int kPlantedThreads = 64;
struct PlantedShared {
  alignas(16) float v[kPlantedThreads];
};
/// What out[i] must be in a grid of `blocks`, for in[i] = i.
inline float expected(Bug bug, std::int64_t i, std::int64_t blocks) {
  const std::int64_t t = i % kPlantedThreads, first = i - t, warp = i - i % 32;
  switch (bug) {
    case Bug::no_barrier_before_read:
    case Bug::copy_not_waited_for:
    case Bug::copy_without_barrier:
    case Bug::divergent_barrier:
    case Bug::exit_before_barrier: return float(first + kPlantedThreads - 1 - t);
    case Bug::no_barrier_before_reuse: return float(3 * (first + kPlantedThreads - 1 - t) + 3);
    case Bug::no_warp_barrier:
    case Bug::shuffle_as_fence: return float(warp + 31 - i % 32);
    case Bug::shuffle_with_exited_lane:
    case Bug::shuffle_outside_its_mask:
    case Bug::shuffle_reads_outside_mask:
    case Bug::shuffles_at_two_places: return float(i ^ 1);
    case Bug::mma_by_some_lanes: return 0.0f;
    case Bug::no_fence_before_ticket:
    case Bug::ticket_not_reset: return i == 0 ? float(blocks * (blocks - 1) / 2) : float(i);
    case Bug::two_blocks_one_place: return float(i);
    default: return float(i);
  }
}

}  // namespace eg::EVERGRAD_BACKEND
