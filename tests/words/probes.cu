// tests/words/probes.cu - see probes.h.
#include "tests/words/probes.h"

#include "engine/rng.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

template <class T>
__device__ __forceinline__ T shuffled(const ShuffleProbe& p, T v) {
  switch (p.kind) {
    case ShuffleKind::index: return __shfl_sync(p.mask, v, p.argument, p.width);
    case ShuffleKind::up: return __shfl_up_sync(p.mask, v, unsigned(p.argument), p.width);
    case ShuffleKind::down: return __shfl_down_sync(p.mask, v, unsigned(p.argument), p.width);
    case ShuffleKind::exclusive_or: return __shfl_xor_sync(p.mask, v, p.argument, p.width);
  }
  return v;
}

__global__ void __launch_bounds__(32) shuffle_device(const ShuffleProbe p) {
  const unsigned lane = threadIdx.x;
  if (!(p.mask >> lane & 1)) return;
  p.out[lane] = shuffled(p, p.in[lane]);
  p.out_wide[lane] = shuffled(p, p.in_wide[lane]);
}

__global__ void __launch_bounds__(32) vote_device(const VoteProbe p) {
  const unsigned lane = threadIdx.x;
  if (!(p.mask >> lane & 1)) return;
  p.out[3 * lane] = __ballot_sync(p.mask, p.predicate[lane]);
  p.out[3 * lane + 1] = unsigned(__any_sync(p.mask, p.predicate[lane]));
  p.out[3 * lane + 2] = unsigned(__all_sync(p.mask, p.predicate[lane]));
}

__global__ void __launch_bounds__(32) mma_device(const MmaProbe p) {
  const std::int64_t at = std::int64_t(blockIdx.x) * 32 + threadIdx.x;
  std::uint32_t a[4], b[2];
  float d[4];
  for (int i = 0; i < 4; ++i) a[i] = p.a[4 * at + i], d[i] = p.c[4 * at + i];
  for (int i = 0; i < 2; ++i) b[i] = p.b[2 * at + i];
  mma_16816(d, a, b);
  for (int i = 0; i < 4; ++i) p.d[4 * at + i] = d[i];
}

struct alignas(16) Matrices {
  std::uint16_t v[4][8][8];
};
__global__ void __launch_bounds__(32) ldmatrix_device(const LdmatrixProbe p) {
  Matrices& s = static_shared<Matrices>();
  const int lane = int(threadIdx.x);
  for (int i = lane; i < 256; i += 32) s.v[i / 64][i / 8 % 8][i % 8] = p.matrices[i];
  __syncthreads();
  const bf16* const row = reinterpret_cast<const bf16*>(&s.v[lane / 8][lane % 8][0]);
  std::uint32_t four[4], two[2];
  std::uint32_t* const out = p.out + 12 * lane;
  ldmatrix_x4(four, row);
  for (int i = 0; i < 4; ++i) out[i] = four[i];
  ldmatrix_x4_trans(four, row);
  for (int i = 0; i < 4; ++i) out[4 + i] = four[i];
  ldmatrix_x2(two, row);
  for (int i = 0; i < 2; ++i) out[8 + i] = two[i];
  ldmatrix_x2_trans(two, row);
  for (int i = 0; i < 2; ++i) out[10 + i] = two[i];
}

__global__ void __launch_bounds__(256) convert_device(const ConvertProbe p) {
  const std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.n) return;
  const std::uint32_t pair = pack_bf16(0.0f, p.in[i]);
  float low, high;
  unpack_bf16(pair, low, high);
  p.out[i] = std::uint32_t(to_bf16(p.in[i]).bits) | (pair & 0xffff0000u);
  p.back[i] = high;
}

struct alignas(16) Landing {
  std::uint32_t v[2][32][4];
};
__global__ void __launch_bounds__(32) copy_device(const CopyProbe p) {
  Landing& s = static_shared<Landing>();
  const int lane = int(threadIdx.x);
  for (int i = 0; i < 4; ++i) s.v[0][lane][i] = s.v[1][lane][i] = 7u;
  cp_async_16(s.v[0][lane], p.in + 4 * lane);
  cp_async_commit();
  cp_async_16(s.v[1][lane], p.in + 4 * (32 + lane), lane % 3 != 0);
  cp_async_commit();
  cp_async_wait<1>();
  for (int i = 0; i < 4; ++i) p.out[4 * lane + i] = s.v[0][lane][i];
  cp_async_wait<0>();
  for (int i = 0; i < 4; ++i)
    p.out[4 * (32 + lane) + i] = s.v[0][lane][i], p.out[4 * (64 + lane) + i] = s.v[1][lane][i];
}

__global__ void index_device(const IndexProbe p) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  unsigned* const out = p.out + 9 * (std::size_t(block) * blockDim.x * blockDim.y * blockDim.z + thread);
  out[0] = threadIdx.x, out[1] = threadIdx.y, out[2] = threadIdx.z;
  out[3] = blockIdx.x, out[4] = blockIdx.y, out[5] = blockIdx.z;
  out[6] = blockDim.x, out[7] = gridDim.y, out[8] = gridDim.z;
}

__global__ void __launch_bounds__(96) reduce_device(const ReduceProbe p) {
  const int t = int(threadIdx.x);
  const float v = p.in[t];
  p.out[3 * t] = warp_sum(v);
  p.out[3 * t + 1] = warp_max(v);
  p.out[3 * t + 2] = block_sum<96>(v);
  p.out_wide[2 * t] = warp_sum(double(v));
  p.out_wide[2 * t + 1] = block_sum<96>(double(v));
}

__global__ void atomic_device(const AtomicProbe p) {
  const unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
  p.old[t] = atomicAdd(p.counters, 1u);
  atomicMax(p.counters + 1, t);
}

struct Counted {
  unsigned threads;
};
__global__ void cell_device(const CellProbe p) {
  Counted& s = static_shared<Counted>();
  const unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
  if (threadIdx.x == 0) s.threads = 0;
  __syncthreads();
  p.taken[t] = atomicExch(p.cell, t + 1);
  atomicMax(p.largest, int(t) - 50);
  atomicAdd(&s.threads, 1u);
  __syncthreads();
  if (threadIdx.x == 0) p.in_block[blockIdx.x] = s.threads;
}

__global__ void bits_device(const BitsProbe p) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= p.n) return;
  p.out[3 * i] = std::uint32_t(__popc(p.in[i]));
  p.out[3 * i + 1] = std::uint32_t(__ffs(int(p.in[i])));
  p.out[3 * i + 2] = std::uint32_t(__clz(int(p.in[i])));
}

template <int kN>
__device__ __forceinline__ void copy_by(const std::uint16_t* from, std::uint16_t* to) {
  for (int i = 0; i < 8; i += kN) store_vec(to + i, load_vec<Vec<std::uint16_t, kN>>(from + i));
}
__global__ void wide_device(const WideProbe p) {
  const std::int64_t i = 8 * (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
  if (i >= p.n) return;
  copy_by<8>(p.in + i, p.out + i);
  copy_by<4>(p.in + i, p.out + p.n + i);
  copy_by<2>(p.in + i, p.out + 2 * p.n + i);
}

__global__ void philox_device(const PhiloxProbe p) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= p.n) return;
  const std::uint32_t* const c = p.counter + 4 * i;
  const Philox4 out = philox4x32_10({c[0], c[1], c[2], c[3]}, p.keys[2 * i], p.keys[2 * i + 1]);
  for (int w = 0; w < 4; ++w) p.out[4 * i + w] = out.word[w];
  p.draws[i] = Key{p.seed, p.stream, p.step}.bits(std::uint64_t(i));
}

__global__ void fast_device(const FastProbe p) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= p.n) return;
  const float x = p.in[i];
  p.out[4 * i] = exp2_fast(x);
  p.out[4 * i + 1] = log2_fast(fabsf(x));
  p.out[4 * i + 2] = rsqrt_fast(fabsf(x));
  p.out[4 * i + 3] = reciprocal_fast(x);
}

__global__ void pause_device(const PauseProbe p) {
  unsigned got = 0;
  if (threadIdx.x == blockDim.x - 1) atomicExch(p.flag, 41u);
  if (threadIdx.x == 0) {
    while ((got = atomicAdd(p.flag, 0u)) == 0) spin_pause();
    p.out[0] = got + 1;
  }
}

__global__ void grid_device(const GridProbe p) {
  Counted& s = static_shared<Counted>();
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
  float mine = p.in[i];
  if (threadIdx.x == 0) s.threads = 0;
  for (int round = 0; round < p.rounds; ++round) {
    p.between[i] = mine;
    grid_barrier();
    mine += p.between[(i + blockDim.x) % n];
    if (threadIdx.x == 0) ++s.threads;
    grid_barrier();  // all have read before anyone writes again
  }
  p.out[i] = mine;
  if (threadIdx.x == 0) p.out[n + blockIdx.x] = float(s.threads);
}

}  // namespace

void (*shuffle_probe())(ShuffleProbe) { return &shuffle_device; }
void (*vote_probe())(VoteProbe) { return &vote_device; }
void (*mma_probe())(MmaProbe) { return &mma_device; }
void (*ldmatrix_probe())(LdmatrixProbe) { return &ldmatrix_device; }
void (*convert_probe())(ConvertProbe) { return &convert_device; }
void (*copy_probe())(CopyProbe) { return &copy_device; }
void (*index_probe())(IndexProbe) { return &index_device; }
void (*reduce_probe())(ReduceProbe) { return &reduce_device; }
void (*atomic_probe())(AtomicProbe) { return &atomic_device; }
void (*cell_probe())(CellProbe) { return &cell_device; }
void (*bits_probe())(BitsProbe) { return &bits_device; }
void (*wide_probe())(WideProbe) { return &wide_device; }
void (*philox_probe())(PhiloxProbe) { return &philox_device; }
void (*fast_probe())(FastProbe) { return &fast_device; }
void (*grid_probe())(GridProbe) { return &grid_device; }
void (*pause_probe())(PauseProbe) { return &pause_device; }

}  // namespace eg::EVERGRAD_BACKEND
