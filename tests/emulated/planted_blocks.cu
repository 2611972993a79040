// tests/emulated/planted_blocks.cu - mistakes between blocks: places that two of them write, and what is missing when the
// last block to come takes over from the others; see planted.h.
#include "tests/emulated/planted.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

struct Ticket {
  unsigned last;
};

template <Bug kBug, bool kFixed>
__global__ void __launch_bounds__(kPlantedThreads) planted_blocks_device(const PlantedParams p) {
  const int t = int(threadIdx.x);
  const std::int64_t i = std::int64_t(blockIdx.x) * kPlantedThreads + t;
  const float mine = p.in[i];
  const auto wrong = [](Bug bug) { return kBug == bug && !kFixed; };
  if constexpr (kBug == Bug::two_blocks_one_place) {
    if (t == 0 && (!kFixed || blockIdx.x == gridDim.x - 1)) p.partials[0] = float(blockIdx.x);
  } else if constexpr (kBug == Bug::two_blocks_one_partial || kBug == Bug::no_fence_before_ticket ||
                       kBug == Bug::ticket_not_reset) {
    if (t == 0) {
      p.partials[wrong(Bug::two_blocks_one_partial) ? blockIdx.x / 2 : blockIdx.x] = float(blockIdx.x);
      if (!wrong(Bug::no_fence_before_ticket)) __threadfence();
      if (atomicAdd(p.ticket, 1u) == gridDim.x - 1) {
        __threadfence();
        float sum = 0.0f;
        for (unsigned b = 0; b < gridDim.x; ++b) sum += static_cast<volatile float*>(p.partials)[b];
        p.partials[gridDim.x] = sum;
        if (!wrong(Bug::ticket_not_reset)) atomicExch(p.ticket, 0u);
      }
    }
  } else if constexpr (kBug == Bug::waits_for_another_block) {
    if (kFixed) {
      if (blockIdx.x == gridDim.x - 1 && t == 0) atomicExch(p.ticket, 1u);
      grid_barrier();
    } else if (t == 0) {
      if (blockIdx.x == gridDim.x - 1) atomicExch(p.ticket, 1u);
      while (atomicAdd(p.ticket, 0u) == 0) spin_pause();
    }
  } else if constexpr (kBug >= Bug::no_grid_barrier && kBug <= Bug::grid_barrier_of_ordinary_launch) {
    const std::int64_t next = (i + kPlantedThreads) % p.n;
    const int rounds = kBug == Bug::no_second_grid_barrier ? 3 : 1;
    float sum = 0.0f;
    for (int round = 0; round < rounds; ++round) {
      p.rows[i] = mine + float(round);
      if (wrong(Bug::deserted_grid_barrier) && blockIdx.x == 3) return;
      if (wrong(Bug::half_grid_barrier) && t >= 32) return;
      if (wrong(Bug::divergent_grid_barrier) && blockIdx.x == 2) {
        grid_barrier();
      } else if (!wrong(Bug::no_grid_barrier)) {
        grid_barrier();
      }
      if (kBug == Bug::fault_behind_grid_barrier && blockIdx.x == 3 && t == 7)  // while others wait at the next one
        store_vec(p.partials + (kFixed ? 0 : 1), Vec<float, 4>{{0.0f, 0.0f, 0.0f, 0.0f}});
      sum += p.rows[next];
      if (!wrong(Bug::no_second_grid_barrier)) grid_barrier();
    }
    p.out[i] = sum;
    return;
  } else {  // every thread hands something over
    Ticket& s = static_shared<Ticket>();
    p.rows[i] = mine;
    if (!wrong(Bug::no_barrier_before_ticket)) __syncthreads();
    if (t == 0) {
      __threadfence();
      s.last = atomicAdd(p.ticket, 1u) == gridDim.x - 1;
    }
    if (!wrong(Bug::no_barrier_after_ticket)) __syncthreads();
    if (s.last) {
      if (!wrong(Bug::no_fence_after_ticket)) __threadfence();
      float sum = 0.0f;
      for (unsigned b = 0; b < gridDim.x; ++b)
        sum += static_cast<volatile float*>(p.rows)[(b + 1) * kPlantedThreads - 1 - t];
      p.totals[t] = sum;
      if (t == 0) atomicExch(p.ticket, 0u);
    }
  }
  p.out[i] = mine;
}

template <bool kFixed>
PlantedKernel pick(Bug bug) {
  switch (bug) {
#define EVERGRAD_PICK(name) \
  case Bug::name: return &planted_blocks_device<Bug::name, kFixed>;
    EVERGRAD_PICK(two_blocks_one_place)
    EVERGRAD_PICK(two_blocks_one_partial)
    EVERGRAD_PICK(no_fence_before_ticket)
    EVERGRAD_PICK(no_fence_after_ticket)
    EVERGRAD_PICK(no_barrier_before_ticket)
    EVERGRAD_PICK(no_barrier_after_ticket)
    EVERGRAD_PICK(ticket_not_reset)
    EVERGRAD_PICK(no_grid_barrier)
    EVERGRAD_PICK(no_second_grid_barrier)
    EVERGRAD_PICK(deserted_grid_barrier)
    EVERGRAD_PICK(half_grid_barrier)
    EVERGRAD_PICK(divergent_grid_barrier)
    EVERGRAD_PICK(fault_behind_grid_barrier)
    EVERGRAD_PICK(grid_barrier_of_ordinary_launch)
    EVERGRAD_PICK(waits_for_another_block)
#undef EVERGRAD_PICK
    default: return nullptr;
  }
}

}  // namespace

PlantedKernel planted_blocks_kernel(Bug bug, bool fixed) { return fixed ? pick<true>(bug) : pick<false>(bug); }

}  // namespace eg::EVERGRAD_BACKEND
