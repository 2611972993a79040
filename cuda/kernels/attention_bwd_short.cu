// cuda/kernels/attention_bwd_short.cu - softmax attention on tensor cores, backward, for short sequences.
//
// Math     as attention_bwd.cu: P = e^(S - lse), dP = dO V^T, delta = rowsum(dO O), dS = scale P (dP - delta);
//          dQ = dS K, dK = dS^T Q, dV = P^T dO
// Traffic  qkv, out and dO once, dO once more for delta (from the cache): 12 B N H D bytes in, 6 out
// Work     10 B H N^2 D FLOP: S and dP are computed once, where two kernels need 14; in tiles of 16 x 16 tokens 1.11
//          times that at N = 197, 1.51 times at 65 (counted: tests/emulated/test_attention_tiles.cpp)
// Mapping  a block owns one head of one image, each of its warps 16 keys: v lies in registers as a left operand, dk and
//          dv as sums. Queries and dO pass through shared memory 32 at a time, in two stages of asynchronous copies.
//          Every warp leaves its dS (rounded to bf16, as for dK) in shared memory; after the next barrier the block
//          multiplies it by the keys, which stay in shared memory: that is dQ, 16 x 16 numbers a warp at a time. Both
//          stages and both arrays of dS are used in turn, so one barrier per 32 queries is enough, and a warp without a
//          share of dQ goes on. Where a head has more keys than a block has warps for, its warps take the keys in two
//          rounds, and dQ waits in shared memory, in fp32, for the second. All sums in a fixed order.
// Limits   D 32, 64, 80, 96 or 128; one round takes 256, 256, 128, 128, 128 tokens, two take 512, 384, 256, 256, 256, if
//          shared memory suffices: attention_bwd_short_bytes() (N = 197, D = 64: 83 KiB). More goes to attention_bwd.cu.
#include "cuda/kernels/attention.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr int kPitchScores = kShortQueries + 8;  // again an odd number of 16-byte pieces

struct Arena {
  bf16 first[1];  // the length comes with the launch
};

/// Where this thread is, and where things lie in shared memory. Every phase makes its own: kept from one to the next, all
/// this would take two dozen of the registers that the sums need.
template <int kWidth>
struct Here {
  using Tiles = AttentionTiles<kWidth, 16>;
  static constexpr int kPitch = Tiles::kPitch, kStage = 2 * kShortQueries * kPitch;
  int lane, warp, warps;
  bf16 *keys,    // [16 warps][kPitch]
      *stages,   // two, each of them queries [32][kPitch], then dO [32][kPitch]
      *dscores;  // two arrays of dS transposed, each [16 warps][kPitchScores]
  float* rows;   // [tokens, rounded up to whole stages][2]: lse times log2 e, and delta

  __device__ __forceinline__ Here() {
    const int thread = reread_thread_x();
    lane = thread % kWarp, warp = thread / kWarp, warps = reread_threads_x() / kWarp;
    keys = dynamic_shared<Arena>().first, stages = keys + kTileRows * warps * kPitch, dscores = stages + 2 * kStage;
    rows = reinterpret_cast<float*>(dscores + 2 * kTileRows * warps * kPitchScores);
  }
  /// [tokens, rounded up][kWidth + 8] behind it all, where there are two groups.
  __device__ __forceinline__ float* dq(const AttentionParams& p) const {
    return rows + 2 * ceil_div(p.tokens, kShortQueries) * kShortQueries;
  }
  __device__ __forceinline__ bf16* stage(int step) const { return stages + step % 2 * kStage; }
  /// dS of a tile of keys.
  __device__ __forceinline__ bf16* dscores_of(int step, int tile) const {
    return dscores + (step % 2 * warps + tile) * kTileRows * kPitchScores;
  }
};
/// The grid is heads x images.
__device__ __forceinline__ HeadOf head_of(const Operand& o, const AttentionParams& p, int part, int parts) {
  return packed(o, p, part, parts, reread_block_y(), reread_block_x(), reread_blocks_x());
}

/// lse and delta of every query; warps take 16 of them at a time.
template <int kWidth>
__device__ __forceinline__ void prepare_rows(const AttentionParams& p) {
  using Tiles = typename Here<kWidth>::Tiles;
  const Here<kWidth> here;
  const HeadOf out = head_of(p.out, p, 0, 1), dout = head_of(p.dout, p, 0, 1);
  EVERGRAD_NO_UNROLL
  for (int row = here.warp * kTileRows; row < ceil_div(p.tokens, kShortQueries) * kShortQueries;
       row += here.warps * kTileRows) {
    std::uint32_t a[Tiles::kSteps][4], b[Tiles::kSteps][4];
    float delta[2];
    Tiles::load_rows(out, row, p.tokens, here.lane, a);
    Tiles::load_rows(dout, row, p.tokens, here.lane, b);
    dot_rows(a, b, delta);
    EVERGRAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int query = row + here.lane / 4 + 8 * half;
      delta[half] = row_sum(delta[half]);
      if (here.lane % 4 == 0) {
        const std::int64_t at = (std::int64_t(reread_block_y()) * p.heads + reread_block_x()) * p.tokens + query;
        here.rows[2 * query] = query < p.tokens ? p.lse[at] * kLog2e : 0.0f;
        here.rows[2 * query + 1] = delta[half];
      }
    }
  }
}

/// Starts the copy of the keys of a group.
template <int kWidth>
__device__ __forceinline__ void fetch_keys(int first_key, const AttentionParams& p) {
  const Here<kWidth> here;
  const int tiles = ceil_div(min_of(here.warps * kTileRows, p.tokens - first_key), kTileRows);
  Here<kWidth>::Tiles::fetch(here.keys, head_of(p.qkv, p, 1, 3), first_key, tiles * kTileRows, p.tokens,
                             here.warps * kWarp);
}
/// Starts the copy of one stage of queries and dO.
template <int kWidth>
__device__ __forceinline__ void fetch_stage(int step, const AttentionParams& p) {
  using Tiles = typename Here<kWidth>::Tiles;
  const Here<kWidth> here;
  bf16* const to = here.stage(step);
  const int first = step * kShortQueries, threads = here.warps * kWarp;
  Tiles::fetch(to, head_of(p.qkv, p, 0, 3), first, kShortQueries, p.tokens, threads);
  Tiles::fetch(to + kShortQueries * Tiles::kPitch, head_of(p.dout, p, 0, 1), first, kShortQueries, p.tokens, threads);
  cp_async_commit();
}

/// s = 16 keys times 16 queries, both from shared memory.
template <class Tiles>
__device__ __forceinline__ void multiply_keys(const bf16* keys, const bf16* queries, int lane, float (&s)[2][4]) {
  EVERGRAD_UNROLL
  for (int e = 0; e < 4; ++e) s[0][e] = s[1][e] = 0.0f;
  EVERGRAD_UNROLL
  for (int k = 0; k < Tiles::kSteps; ++k) {
    std::uint32_t rows[4], pair[4];
    ldmatrix_x4(rows, keys + lane % 16 * Tiles::kPitch + 16 * k + lane / 16 * 8);
    ldmatrix_x4(pair, queries + (lane / 16 * 8 + lane % 8) * Tiles::kPitch + 16 * k + lane / 8 % 2 * 8);
    const std::uint32_t left[2] = {pair[0], pair[1]}, right[2] = {pair[2], pair[3]};
    mma_16816(s[0], rows, left);
    mma_16816(s[1], rows, right);
  }
}

/// What a warp keeps of its 16 keys.
template <int kWidth>
struct KeysOfWarp {
  using Tiles = typename Here<kWidth>::Tiles;
  std::uint32_t v[Tiles::kSteps][4];
  float dk[kWidth / 8][4], dv[kWidth / 8][4];

  __device__ __forceinline__ void begin(int first_key, const AttentionParams& p) {
    const Here<kWidth> here;
    Tiles::load_rows(head_of(p.qkv, p, 2, 3), first_key + here.warp * kTileRows, p.tokens, here.lane, v);
    EVERGRAD_UNROLL
    for (int c = 0; c < kWidth / 8; ++c) {
      EVERGRAD_UNROLL
      for (int e = 0; e < 4; ++e) dk[c][e] = dv[c][e] = 0.0f;
    }
  }

  /// Takes in the queries of one stage and leaves dS in shared memory.
  __device__ __forceinline__ void take(int first_key, int step, const AttentionParams& p) {
    if (first_key + reread_thread_x() / kWarp * kTileRows >= p.tokens) return;
    EVERGRAD_NO_UNROLL
    for (int from = 0; from < min_of(kShortQueries, p.tokens - step * kShortQueries); from += kTileRows) {
      const Here<kWidth> here;
      const int lane = here.lane, row = first_key + here.warp * kTileRows;
      const bf16 *const q = here.stage(step) + from * Tiles::kPitch, *const dout = q + kShortQueries * Tiles::kPitch;
      float s[2][4], dp[2][4];
      Tiles::multiply_transposed(v, dout, 0, lane, dp);
      multiply_keys<Tiles>(here.keys + here.warp * kTileRows * Tiles::kPitch, q, lane, s);
      EVERGRAD_UNROLL
      for (int j = 0; j < 2; ++j) {
        // lse and delta of two queries; absent ones have S = lse = dO = 0
        const auto of = load_vec<Vec<float, 4>>(here.rows + 2 * (step * kShortQueries + from + 8 * j + lane % 4 * 2));
        EVERGRAD_UNROLL
        for (int e = 0; e < 4; ++e) {
          // An absent key would have e^(0 - lse), which may be infinite.
          const bool exists = row + lane / 4 + e / 2 * 8 < p.tokens;
          s[j][e] = exists ? exp2_fast(s[j][e] * p.scale2 - of.v[e % 2 * 2]) : 0.0f;
          dp[j][e] = p.scale * s[j][e] * (dp[j][e] - of.v[e % 2 * 2 + 1]);
        }
        EVERGRAD_UNROLL
        for (int half = 0; half < 2; ++half)
          store_pair(
              here.dscores_of(step, here.warp) + (lane / 4 + 8 * half) * kPitchScores + from + 8 * j + lane % 4 * 2,
              dp[j][2 * half], dp[j][2 * half + 1], false);
      }
      Tiles::multiply_add(s, dout, 0, lane, dv);
      Tiles::multiply_add(dp, q, 0, lane, dk);
    }
  }

  __device__ __forceinline__ void end(int first_key, const AttentionParams& p) const {
    const Here<kWidth> here;
    const int row = first_key + here.warp * kTileRows;
    Tiles::store_rows(head_of(p.dqkv, p, 1, 3), row, p.tokens, here.lane, dk, 1.0f, 1.0f, p.accumulate);
    Tiles::store_rows(head_of(p.dqkv, p, 2, 3), row, p.tokens, here.lane, dv, 1.0f, 1.0f, p.accumulate);
  }
};

/// dQ of one stage, 16 queries x 16 numbers at a time.
template <int kWidth, int kGroups>
__device__ __forceinline__ void finish_queries(int first_key, int step, const AttentionParams& p) {
  using Tiles = typename Here<kWidth>::Tiles;
  constexpr int kAcross = kWidth / 16;
  const Here<kWidth> here;
  const int lane = here.lane, keys = here.warps * kTileRows;
  const int shares = ceil_div(min_of(kShortQueries, p.tokens - step * kShortQueries), kTileRows) * kAcross;
  const HeadOf dq = head_of(p.dqkv, p, 0, 3);
  EVERGRAD_NO_UNROLL
  for (int share = here.warp; share < shares; share += here.warps) {
    const int row = share / kAcross * kTileRows, col = share % kAcross * 16;
    float sum[2][4] = {};
    EVERGRAD_NO_UNROLL
    for (int tile = 0; tile * kTileRows < min_of(keys, p.tokens - first_key); ++tile) {
      std::uint32_t a[4], b[4];
      ldmatrix_x4_trans(
          a, here.dscores_of(step, tile) + (lane / 16 * 8 + lane % 8) * kPitchScores + row + lane / 8 % 2 * 8);
      ldmatrix_x4_trans(b, here.keys + (tile * kTileRows + lane % 16) * Tiles::kPitch + col + lane / 16 * 8);
      const std::uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
      mma_16816(sum[0], a, left);
      mma_16816(sum[1], a, right);
    }
    EVERGRAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int query = step * kShortQueries + row + lane / 4 + 8 * half;
      EVERGRAD_UNROLL
      for (int c = 0; c < 2; ++c) {
        const int at = col + 8 * c + lane % 4 * 2;
        float x = sum[c][2 * half], y = sum[c][2 * half + 1];
        float* const waits = here.dq(p) + query * (kWidth + 8) + at;
        if (kGroups > 1 && first_key > 0) x += waits[0], y += waits[1];
        if (kGroups > 1 && first_key + keys < p.tokens)
          waits[0] = x, waits[1] = y;
        else if (query < p.tokens)
          store_pair(dq.at + std::int64_t(query) * dq.stride + at, x, y, p.accumulate);
      }
    }
  }
}

/// One round over the queries.
template <int kWidth, int kGroups>
__device__ __forceinline__ void run_group(int first_key, const AttentionParams& p) {
  __syncthreads();  // lse and delta are there; the keys before are no longer read
  fetch_keys<kWidth>(first_key, p);
  fetch_stage<kWidth>(0, p);
  KeysOfWarp<kWidth> mine;
  mine.begin(first_key, p);
  EVERGRAD_NO_UNROLL
  for (int step = 0;; ++step) {
    cp_async_wait<0>();
    __syncthreads();  // this stage is there; the one before is read, and its dS complete
    if ((step + 1) * kShortQueries < p.tokens) fetch_stage<kWidth>(step + 1, p);
    if (step > 0) finish_queries<kWidth, kGroups>(first_key, step - 1, p);
    if (step * kShortQueries >= p.tokens) break;
    mine.take(first_key, step, p);
  }
  mine.end(first_key, p);
}

template <int kWidth, int kGroups>
__global__ void __launch_bounds__(attention_bwd_short_warps(kWidth, kGroups) * kWarp)
    attention_bwd_short_device(const AttentionParams p) {
  prepare_rows<kWidth>(p);
  if constexpr (kGroups == 1) {
    run_group<kWidth, 1>(0, p);
  } else {
    for (int first_key = 0; first_key < p.tokens; first_key += reread_threads_x() / kWarp * kTileRows)
      run_group<kWidth, kGroups>(first_key, p);
  }
}

template <int kWidth>
AttentionKernel kernel_of(int groups) {
  return groups == 1   ? &attention_bwd_short_device<kWidth, 1>
         : groups == 2 ? &attention_bwd_short_device<kWidth, 2>
                       : nullptr;
}

}  // namespace

AttentionKernel attention_bwd_short_kernel(int width, int groups) {
  switch (width) {
    case 32: return kernel_of<32>(groups);
    case 64: return kernel_of<64>(groups);
    case 80: return kernel_of<80>(groups);
    case 96: return kernel_of<96>(groups);
    case 128: return kernel_of<128>(groups);
    default: return nullptr;
  }
}

}  // namespace eg::EVERGRAD_BACKEND
