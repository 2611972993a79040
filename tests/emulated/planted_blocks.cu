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
#undef EVERGRAD_PICK
    default: return nullptr;
  }
}

}  // namespace

PlantedKernel planted_blocks_kernel(Bug bug, bool fixed) { return fixed ? pick<true>(bug) : pick<false>(bug); }

}  // namespace eg::EVERGRAD_BACKEND
