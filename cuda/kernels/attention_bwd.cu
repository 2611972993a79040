// cuda/kernels/attention_bwd.cu - softmax attention on tensor cores, backward.
//
// Math     from qkv, out, lse and dO (Dao et al. 2022, arXiv:2205.14135): P = e^(S - lse), dP = dO V^T, delta =
//          rowsum(dO O), dS = scale P (dP - delta); dQ = dS K, dK = dS^T Q, dV = P^T dO
// Traffic  two kernels, each reads qkv and dO once for short sequences: 2 x 8 B N H D bytes in, 6 out
// Work     14 B H N^2 D FLOP: S and dP are computed in both kernels, which is what it costs to need neither atomics
//          nor a buffer for dQ; times what tiles of 16 x 16 tokens add, as in attention_fwd.cu
// Mapping  queries kernel: warps own 16 queries, keys and values in shared memory; it leaves delta for the keys
//          kernel, where warps own 16 keys, and queries and dO are in shared memory. Warps take 64 or 32 of the other
//          side at a time (16 keys' sums of width 128 leave registers for 16), then 16 at a time what is left.
//          Everything is summed in a fixed order.
// Limits   any number of tokens; D 32, 64, 80, 96 or 128. Short sequences take attention_bwd_short.cu.
#include "cuda/kernels/attention.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

struct Arena {
  bf16 tokens[1];  // two tiles, then two floats per row
};

/// Loads a chunk of two arrays; all threads of the block.
template <int kWidth>
__device__ __forceinline__ void load_chunk(bf16* a, const HeadOf& from_a, bf16* b, const HeadOf& from_b, int begin,
                                           const AttentionParams& p) {
  using Tiles = AttentionTiles<kWidth>;
  Tiles::fetch(a, from_a, begin, p.chunk, p.tokens, int(blockDim.x));
  Tiles::fetch(b, from_b, begin, p.chunk, p.tokens, int(blockDim.x));
  cp_async_commit();
  cp_async_wait<0>();
}

/// Keys (or queries) that a warp takes at once: as many as the registers that they need leave for the sums.
template <int kWidth>
using QueriesTiles = AttentionTiles<kWidth, (kWidth > 32 ? 32 : 64)>;
template <int kWidth>
using KeysTiles = AttentionTiles<kWidth, (kWidth > 96   ? 16
                                          : kWidth > 32 ? 32
                                                        : 64)>;

/// d += dS K of 16 queries and keys [from, from + kSub) of the chunk; where kMasked, those at or beyond `end` do not exist.
template <class Tiles, bool kMasked, int kSteps, int kColumns>
__device__ __forceinline__ void take_keys(const std::uint32_t (&rows)[kSteps][4],
                                          const std::uint32_t (&drows)[kSteps][4], const bf16* keys, const bf16* values,
                                          int from, int end, const AttentionParams& p, const float (&lse)[2],
                                          const float (&delta)[2], int lane, float (&d)[kColumns][4]) {
  float s[Tiles::kSub / 8][4], dp[Tiles::kSub / 8][4];
  Tiles::multiply_transposed(rows, keys, from, lane, s);
  Tiles::multiply_transposed(drows, values, from, lane, dp);
  EVERGRAD_UNROLL
  for (int j = 0; j < Tiles::kSub / 8; ++j) {
    EVERGRAD_UNROLL
    for (int e = 0; e < 4; ++e) {
      // An absent key would have e^(0 - lse), which may be infinite.
      const bool exists = !kMasked || from + 8 * j + lane % 4 * 2 + e % 2 < end;
      const float probability = exists ? exp2_fast(s[j][e] * (p.scale * kLog2e) - lse[e / 2]) : 0.0f;
      s[j][e] = p.scale * probability * (dp[j][e] - delta[e / 2]);
    }
  }
  Tiles::multiply_add(s, keys, from, lane, d);
}

/// dv += P^T dO and dk += dS^T Q of 16 keys and queries [from, from + kSub) of the chunk. Those that do not exist have S =
/// lse = delta = dO = 0, and add nothing.
template <class Tiles, int kSteps, int kColumns>
__device__ __forceinline__ void take_queries(const std::uint32_t (&krows)[kSteps][4],
                                             const std::uint32_t (&vrows)[kSteps][4], const bf16* queries,
                                             const bf16* douts, const float* lse, const float* delta, int from,
                                             const AttentionParams& p, int lane, float (&dk)[kColumns][4],
                                             float (&dv)[kColumns][4]) {
  float s[Tiles::kSub / 8][4], dp[Tiles::kSub / 8][4];
  Tiles::multiply_transposed(krows, queries, from, lane, s);
  Tiles::multiply_transposed(vrows, douts, from, lane, dp);
  EVERGRAD_UNROLL
  for (int j = 0; j < Tiles::kSub / 8; ++j) {
    EVERGRAD_UNROLL
    for (int e = 0; e < 4; ++e) {
      const int query = from + 8 * j + lane % 4 * 2 + e % 2;
      s[j][e] = exp2_fast(s[j][e] * (p.scale * kLog2e) - lse[query]);
      dp[j][e] = p.scale * s[j][e] * (dp[j][e] - delta[query]);
    }
  }
  Tiles::multiply_add(s, douts, from, lane, dv);
  Tiles::multiply_add(dp, queries, from, lane, dk);
}

template <int kWidth>
__global__ void __launch_bounds__(kAttentionWarps* kWarp) attention_bwd_queries_device(const AttentionParams p) {
  using Tiles = QueriesTiles<kWidth>;
  bf16* const keys = dynamic_shared<Arena>().tokens;
  bf16* const values = keys + p.chunk * Tiles::kPitch;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp), warps = int(blockDim.x / kWarp);
  const int tiles = (p.tokens + kTileRows - 1) / kTileRows;
  for (int first = int(blockIdx.y) * warps; first < tiles; first += int(gridDim.y) * warps) {
    const int row = (first + warp) * kTileRows;
    std::uint32_t rows[Tiles::kSteps][4], drows[Tiles::kSteps][4];
    float delta[2], lse[2];
    Tiles::load_rows(packed(p.out, p, 0, 1), row, p.tokens, lane, rows);
    Tiles::load_rows(packed(p.dout, p, 0, 1), row, p.tokens, lane, drows);
    dot_rows(rows, drows, delta);
    Tiles::load_rows(packed(p.qkv, p, 0, 3), row, p.tokens, lane, rows);
    EVERGRAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int query = row + lane / 4 + 8 * half;
      const std::int64_t at = std::int64_t(blockIdx.x) * p.tokens + query;
      delta[half] = row_sum(delta[half]);
      lse[half] = query < p.tokens ? p.lse[at] * kLog2e : 0.0f;
      if (lane % 4 == 0 && query < p.tokens) p.delta[at] = delta[half];
    }
    float d[kWidth / 8][4] = {};
    for (int begin = 0; begin < p.tokens; begin += p.chunk) {
      if (p.chunk < p.tokens || first == int(blockIdx.y) * warps) {
        __syncthreads();
        load_chunk<kWidth>(keys, packed(p.qkv, p, 1, 3), values, packed(p.qkv, p, 2, 3), begin, p);
        __syncthreads();
      }
      const int end = min_of(p.chunk, p.tokens - begin);
      if (row >= p.tokens) continue;
      int from = 0;
      EVERGRAD_NO_UNROLL
      for (; from + Tiles::kSub <= end; from += Tiles::kSub)
        take_keys<Tiles, false>(rows, drows, keys, values, from, end, p, lse, delta, lane, d);
      EVERGRAD_NO_UNROLL
      for (; from < end; from += kTileRows)
        take_keys<AttentionTiles<kWidth, kTileRows>, true>(rows, drows, keys, values, from, end, p, lse, delta, lane,
                                                           d);
    }
    Tiles::store_rows(packed(p.dqkv, p, 0, 3), row, p.tokens, lane, d, 1.0f, 1.0f, p.accumulate);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kAttentionWarps* kWarp) attention_bwd_keys_device(const AttentionParams p) {
  using Tiles = KeysTiles<kWidth>;
  bf16* const queries = dynamic_shared<Arena>().tokens;
  bf16* const douts = queries + p.chunk * Tiles::kPitch;
  float* const lse = reinterpret_cast<float*>(douts + p.chunk * Tiles::kPitch);
  float* const delta = lse + p.chunk;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp), warps = int(blockDim.x / kWarp);
  const int tiles = (p.tokens + kTileRows - 1) / kTileRows;
  for (int first = int(blockIdx.y) * warps; first < tiles; first += int(gridDim.y) * warps) {
    const int row = (first + warp) * kTileRows;
    std::uint32_t krows[Tiles::kSteps][4], vrows[Tiles::kSteps][4];
    Tiles::load_rows(packed(p.qkv, p, 1, 3), row, p.tokens, lane, krows);
    Tiles::load_rows(packed(p.qkv, p, 2, 3), row, p.tokens, lane, vrows);
    float dk_sum[kWidth / 8][4] = {}, dv_sum[kWidth / 8][4] = {};
    for (int begin = 0; begin < p.tokens; begin += p.chunk) {
      if (p.chunk < p.tokens || first == int(blockIdx.y) * warps) {
        __syncthreads();
        for (int i = int(threadIdx.x); i < p.chunk; i += int(blockDim.x)) {
          const bool exists = begin + i < p.tokens;
          const std::int64_t at = std::int64_t(blockIdx.x) * p.tokens + begin + i;
          lse[i] = exists ? p.lse[at] * kLog2e : 0.0f, delta[i] = exists ? p.delta[at] : 0.0f;
        }
        load_chunk<kWidth>(queries, packed(p.qkv, p, 0, 3), douts, packed(p.dout, p, 0, 1), begin, p);
        __syncthreads();
      }
      const int end = min_of(p.chunk, p.tokens - begin);
      if (row >= p.tokens) continue;
      int from = 0;
      EVERGRAD_NO_UNROLL
      for (; from + Tiles::kSub <= end; from += Tiles::kSub)
        take_queries<Tiles>(krows, vrows, queries, douts, lse, delta, from, p, lane, dk_sum, dv_sum);
      EVERGRAD_NO_UNROLL
      for (; from < end; from += kTileRows)
        take_queries<AttentionTiles<kWidth, kTileRows>>(krows, vrows, queries, douts, lse, delta, from, p, lane, dk_sum,
                                                        dv_sum);
    }
    Tiles::store_rows(packed(p.dqkv, p, 1, 3), row, p.tokens, lane, dk_sum, 1.0f, 1.0f, p.accumulate);
    Tiles::store_rows(packed(p.dqkv, p, 2, 3), row, p.tokens, lane, dv_sum, 1.0f, 1.0f, p.accumulate);
  }
}

}  // namespace

AttentionKernel attention_bwd_queries_kernel(int width) {
  switch (width) {
    case 32: return &attention_bwd_queries_device<32>;
    case 64: return &attention_bwd_queries_device<64>;
    case 80: return &attention_bwd_queries_device<80>;
    case 96: return &attention_bwd_queries_device<96>;
    case 128: return &attention_bwd_queries_device<128>;
    default: return nullptr;
  }
}
AttentionKernel attention_bwd_keys_kernel(int width) {
  switch (width) {
    case 32: return &attention_bwd_keys_device<32>;
    case 64: return &attention_bwd_keys_device<64>;
    case 80: return &attention_bwd_keys_device<80>;
    case 96: return &attention_bwd_keys_device<96>;
    case 128: return &attention_bwd_keys_device<128>;
    default: return nullptr;
  }
}

}  // namespace eg::EVERGRAD_BACKEND
