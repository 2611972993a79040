// tests/emulated/planted.cu - mistakes of threads, warps and one block; see planted.h.
#include "tests/emulated/planted.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

struct Small {
  float v[8];
};

/// Something that takes the compiler's knowledge of a pointer away.
__device__ __forceinline__ const float* opaque(const float* p, int one) { return p + (one - 1); }

template <Bug kBug, bool kFixed>
__global__ void __launch_bounds__(kPlantedThreads) planted_device(const PlantedParams p) {
  const int t = int(threadIdx.x), lane = t % kWarp;
  const std::int64_t i = std::int64_t(blockIdx.x) * kPlantedThreads + t;
  PlantedShared& s = dynamic_shared<PlantedShared>();
  const float mine = p.in[i];
  float result = mine;
  if constexpr (kBug == Bug::shared_write_outside) {
    s.v[kFixed || t != 5 ? t : t + kPlantedThreads * p.one] = mine;
    __syncthreads();
    result = kFixed || t != 5 ? s.v[t] : mine;
  } else if constexpr (kBug == Bug::shared_read_outside) {
    s.v[t] = mine;
    __syncthreads();
    result = s.v[kFixed || t != 5 ? t : t + kPlantedThreads * p.one];
  } else if constexpr (kBug == Bug::global_write_outside) {
    if (!kFixed && i + 1 == p.n) p.out[p.n + 1] = mine;
  } else if constexpr (kBug == Bug::global_read_outside) {
    if (!kFixed && i + 1 == p.n) result = opaque(p.in, p.one)[p.n];
  } else if constexpr (kBug == Bug::shared_never_written) {
    if (kFixed || t != 7) s.v[t] = mine;
    __syncthreads();
    result = s.v[kPlantedThreads - 1 - t];
  } else if constexpr (kBug == Bug::load_guard_off_by_one) {
    result = (kFixed ? i + 1 < p.n : i + 1 <= p.n) ? opaque(p.in, p.one)[i + 1] : 0.0f;
  } else if constexpr (kBug == Bug::store_guard_off_by_one) {
    if (i == 0) p.out[0] = mine;
    if (kFixed ? i + 1 < p.n : i + 1 <= p.n) p.out[i + 1] = mine;
    return;
  } else if constexpr (kBug == Bug::freed_memory) {
    if (!kFixed) result = p.freed[i] * 0.0f + mine;
  } else if constexpr (kBug == Bug::no_barrier_before_read) {
    s.v[t] = mine;
    if (kFixed) __syncthreads();
    result = s.v[kPlantedThreads - 1 - t];
  } else if constexpr (kBug == Bug::no_barrier_writer_first) {
    s.v[t] = mine;
    if (kFixed) __syncthreads();
    result = t == 0 ? mine : s.v[t - 1];  // written already, when the threads run in order
  } else if constexpr (kBug == Bug::no_barrier_before_reuse) {
    result = 0.0f;
    for (int round = 0; round < 3; ++round) {
      s.v[t] = mine + float(round);
      __syncthreads();
      result += s.v[kPlantedThreads - 1 - t];
      if (kFixed) __syncthreads();
    }
  } else if constexpr (kBug == Bug::no_warp_barrier) {
    s.v[t] = mine;
    if (kFixed) __syncwarp();
    result = s.v[t - lane + kWarp - 1 - lane];
  } else if constexpr (kBug == Bug::shuffle_as_fence) {
    s.v[t] = mine;
    __shfl_sync(kFullMask, t, 0);  // not a fence, although it looks like one
    if (kFixed) __syncwarp();
    result = s.v[t - lane + kWarp - 1 - lane];
  } else if constexpr (kBug == Bug::divergent_barrier) {
    s.v[t] = mine;
    if (kFixed || t < 32) {
      __syncthreads();
    } else {
      __syncthreads();
    }
    result = s.v[kPlantedThreads - 1 - t];
  } else if constexpr (kBug == Bug::half_barrier) {
    s.v[t] = mine;
    if (kFixed || t < 32) __syncthreads();
    result = s.v[kPlantedThreads - 1 - t];
  } else if constexpr (kBug == Bug::exit_before_barrier) {
    s.v[t] = mine;
    if (!kFixed && t == 40) return;
    __syncthreads();
    result = s.v[kPlantedThreads - 1 - t];
  } else if constexpr (kBug == Bug::shuffle_with_exited_lane) {
    if (!kFixed && lane == 3) return;
    result = __shfl_xor_sync(kFullMask, mine, 1);
  } else if constexpr (kBug == Bug::shuffle_outside_its_mask) {
    result = __shfl_xor_sync(kFixed ? kFullMask : kFullMask & ~(1u << 7), mine, 1);
  } else if constexpr (kBug == Bug::shuffle_reads_outside_mask) {
    if (kFixed) {
      result = __shfl_xor_sync(kFullMask, mine, 1);
    } else {
      const unsigned half = lane % 2 ? 0xaaaaaaaau : 0x55555555u;
      result = __shfl_xor_sync(half, mine, 1);
    }
  } else if constexpr (kBug == Bug::shuffles_at_two_places) {
    if (kFixed || lane < 16)
      result = __shfl_xor_sync(kFullMask, mine, 1);
    else
      result = __shfl_xor_sync(kFullMask, mine, 1);
  } else if constexpr (kBug == Bug::shuffle_against_barrier) {
    if (kFixed || lane < 16)
      result = __shfl_xor_sync(kFullMask, mine, 1);
    else
      __syncthreads();
  } else if constexpr (kBug == Bug::mma_by_some_lanes) {
    float d[4] = {};
    const std::uint32_t a[4] = {}, b[2] = {};
    if (!kFixed && lane == 31) return;
    mma_16816(d, a, b);
    result = d[0];
  } else if constexpr (kBug == Bug::misaligned_vector) {
    if (t == 3) {
      const auto v = load_vec<Vec<float, 4>>(p.in + (kFixed ? 0 : 1));
      result = v.v[0] * 0.0f + mine;
    }
  } else if constexpr (kBug == Bug::misaligned_store) {
    if (t == 3) store_vec(s.v + (kFixed ? 8 : 9), Vec<float, 4>{{mine, mine, mine, mine}});
  } else if constexpr (kBug == Bug::null_pointer_in_parameters) {
    if (!kFixed && t == 0) result = p.nothing[0] * 0.0f + mine;
  } else if constexpr (kBug == Bug::host_pointer_in_parameters) {
    if (!kFixed && t == 2) result = p.host[0] * 0.0f + mine;
  } else if constexpr (kBug == Bug::local_of_another_thread) {
    volatile float local = mine;
    const auto address = reinterpret_cast<std::uint64_t>(&local);
    const auto other = __shfl_xor_sync(kFullMask, std::int64_t(address), 1);
    if (!kFixed) result = *reinterpret_cast<volatile float*>(other) * 0.0f + mine;
    __syncwarp();
    result += local * 0.0f;
  } else if constexpr (kBug == Bug::shift_too_far) {
    const int places = kFixed ? 3 : 32 * p.one;
    result += float((p.one << places) & 0);
  }
  p.out[i] = result;
}

template <bool kFixed>
__global__ void __launch_bounds__(kPlantedThreads) needs_shared_device(const PlantedParams p) {
  Small& s = dynamic_shared<Small>();  // launched with too little when the bug is planted
  if (threadIdx.x < 8) s.v[threadIdx.x] = 0.0f;
  __syncthreads();
  const std::int64_t i = std::int64_t(blockIdx.x) * kPlantedThreads + threadIdx.x;
  p.out[i] = p.in[i] + s.v[threadIdx.x % 8];
}

template <bool kFixed>
PlantedKernel pick(Bug bug) {
  switch (bug) {
#define EVERGRAD_PICK(name) \
  case Bug::name: return &planted_device<Bug::name, kFixed>;
    EVERGRAD_PICK(shared_write_outside)
    EVERGRAD_PICK(shared_read_outside)
    EVERGRAD_PICK(shared_never_written)
    EVERGRAD_PICK(global_write_outside)
    EVERGRAD_PICK(global_read_outside)
    EVERGRAD_PICK(load_guard_off_by_one)
    EVERGRAD_PICK(store_guard_off_by_one)
    EVERGRAD_PICK(freed_memory)
    EVERGRAD_PICK(no_barrier_before_read)
    EVERGRAD_PICK(no_barrier_writer_first)
    EVERGRAD_PICK(no_barrier_before_reuse)
    EVERGRAD_PICK(no_warp_barrier)
    EVERGRAD_PICK(shuffle_as_fence)
    EVERGRAD_PICK(divergent_barrier)
    EVERGRAD_PICK(half_barrier)
    EVERGRAD_PICK(exit_before_barrier)
    EVERGRAD_PICK(shuffle_with_exited_lane)
    EVERGRAD_PICK(shuffle_outside_its_mask)
    EVERGRAD_PICK(shuffle_reads_outside_mask)
    EVERGRAD_PICK(shuffles_at_two_places)
    EVERGRAD_PICK(shuffle_against_barrier)
    EVERGRAD_PICK(mma_by_some_lanes)
    EVERGRAD_PICK(misaligned_vector)
    EVERGRAD_PICK(misaligned_store)
    EVERGRAD_PICK(null_pointer_in_parameters)
    EVERGRAD_PICK(host_pointer_in_parameters)
    EVERGRAD_PICK(local_of_another_thread)
    EVERGRAD_PICK(shift_too_far)
#undef EVERGRAD_PICK
    case Bug::too_little_shared: return &needs_shared_device<kFixed>;
    default: return nullptr;
  }
}

}  // namespace

PlantedKernel planted_kernel(Bug bug, bool fixed) {
  if (const PlantedKernel k = planted_tiles_kernel(bug, fixed)) return k;
  if (const PlantedKernel k = planted_blocks_kernel(bug, fixed)) return k;
  return fixed ? pick<true>(bug) : pick<false>(bug);
}

}  // namespace eg::EVERGRAD_BACKEND
