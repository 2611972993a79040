// cuda/kernels/attention_bwd.cu - softmax attention on tensor cores, backward.
//
// Math     from qkv, out, lse and dO (Dao et al. 2022, arXiv:2205.14135): P = e^(S - lse), dP = dO V^T, delta =
//          rowsum(dO O), dS = scale P (dP - delta); dQ = dS K, dK = dS^T Q, dV = P^T dO
// Traffic  two kernels, each reads qkv and dO once for short sequences: 2 x 8 B N H D bytes in, 6 out
// Work     14 B H N^2 D FLOP: S and dP are computed in both kernels, which is what it costs to need neither atomics
//          nor a buffer for dQ
// Mapping  queries kernel: warps own 16 queries, keys and values in shared memory; it leaves delta for the keys
//          kernel, where warps own 16 keys, and queries and dO are in shared memory. Everything is summed in a fixed
//          order.
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
  Tiles::fetch(a, from_a, begin, p.chunk, p.tokens);
  Tiles::fetch(b, from_b, begin, p.chunk, p.tokens);
  cp_async_commit();
  cp_async_wait<0>();
}

template <int kWidth>
__global__ void __launch_bounds__(kAttentionWarps* kWarp) attention_bwd_queries_device(const AttentionParams p) {
  using Tiles = AttentionTiles<kWidth>;
  bf16* const keys = dynamic_shared<Arena>().tokens;
  bf16* const values = keys + p.chunk * Tiles::kPitch;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp);
  const HeadOf q = packed(p.qkv, p, 0, 3), k = packed(p.qkv, p, 1, 3), v = packed(p.qkv, p, 2, 3),
               dq = packed(p.dqkv, p, 0, 3);
  const HeadOf out = packed(p.out, p, 0, 1), dout = packed(p.dout, p, 0, 1);
  const int tiles = (p.tokens + kTileRows - 1) / kTileRows;
  const float scale = p.scale * kLog2e;
  for (int first = int(blockIdx.y) * kAttentionWarps; first < tiles; first += int(gridDim.y) * kAttentionWarps) {
    const int row = (first + warp) * kTileRows;
    std::uint32_t rows[Tiles::kSteps][4], drows[Tiles::kSteps][4];
    float delta[2], lse[2];
    Tiles::load_rows(out, row, p.tokens, lane, rows);
    Tiles::load_rows(dout, row, p.tokens, lane, drows);
    dot_rows(rows, drows, delta);
    Tiles::load_rows(q, row, p.tokens, lane, rows);
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
      if (p.chunk < p.tokens || first == int(blockIdx.y) * kAttentionWarps) {
        __syncthreads();
        load_chunk<kWidth>(keys, k, values, v, begin, p);
        __syncthreads();
      }
      const int end = min_of(p.chunk, p.tokens - begin);
      if (row >= p.tokens) continue;
      for (int from = 0; from < end; from += Tiles::kSub) {
        float s[Tiles::kSub / 8][4], dp[Tiles::kSub / 8][4];
        Tiles::multiply_transposed(rows, keys, from, lane, s);
        Tiles::multiply_transposed(drows, values, from, lane, dp);
        EVERGRAD_UNROLL
        for (int j = 0; j < Tiles::kSub / 8; ++j) {
          EVERGRAD_UNROLL
          for (int e = 0; e < 4; ++e) {
            const bool exists = from + 8 * j + lane % 4 * 2 + e % 2 < end;
            const float probability = exists ? exp2_fast(s[j][e] * scale - lse[e / 2]) : 0.0f;
            s[j][e] = p.scale * probability * (dp[j][e] - delta[e / 2]);
          }
        }
        Tiles::multiply_add(s, keys, from, lane, d);
      }
    }
    Tiles::store_rows(dq, row, p.tokens, lane, d, 1.0f, 1.0f, p.accumulate);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kAttentionWarps* kWarp) attention_bwd_keys_device(const AttentionParams p) {
  using Tiles = AttentionTiles<kWidth>;
  bf16* const queries = dynamic_shared<Arena>().tokens;
  bf16* const douts = queries + p.chunk * Tiles::kPitch;
  float* const lse = reinterpret_cast<float*>(douts + p.chunk * Tiles::kPitch);
  float* const delta = lse + p.chunk;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp);
  const HeadOf q = packed(p.qkv, p, 0, 3), k = packed(p.qkv, p, 1, 3), v = packed(p.qkv, p, 2, 3),
               dout = packed(p.dout, p, 0, 1);
  const HeadOf dk = packed(p.dqkv, p, 1, 3), dv = packed(p.dqkv, p, 2, 3);
  const int tiles = (p.tokens + kTileRows - 1) / kTileRows;
  const float scale = p.scale * kLog2e;
  for (int first = int(blockIdx.y) * kAttentionWarps; first < tiles; first += int(gridDim.y) * kAttentionWarps) {
    const int row = (first + warp) * kTileRows;
    std::uint32_t krows[Tiles::kSteps][4], vrows[Tiles::kSteps][4];
    Tiles::load_rows(k, row, p.tokens, lane, krows);
    Tiles::load_rows(v, row, p.tokens, lane, vrows);
    float dk_sum[kWidth / 8][4] = {}, dv_sum[kWidth / 8][4] = {};
    for (int begin = 0; begin < p.tokens; begin += p.chunk) {
      if (p.chunk < p.tokens || first == int(blockIdx.y) * kAttentionWarps) {
        __syncthreads();
        for (int i = int(threadIdx.x); i < p.chunk; i += Tiles::kThreads) {
          const bool exists = begin + i < p.tokens;
          const std::int64_t at = std::int64_t(blockIdx.x) * p.tokens + begin + i;
          lse[i] = exists ? p.lse[at] * kLog2e : 0.0f, delta[i] = exists ? p.delta[at] : 0.0f;
        }
        load_chunk<kWidth>(queries, q, douts, dout, begin, p);
        __syncthreads();
      }
      const int end = min_of(p.chunk, p.tokens - begin);
      if (row >= p.tokens) continue;
      for (int from = 0; from < end; from += Tiles::kSub) {
        float s[Tiles::kSub / 8][4], dp[Tiles::kSub / 8][4];
        Tiles::multiply_transposed(krows, queries, from, lane, s);
        Tiles::multiply_transposed(vrows, douts, from, lane, dp);
        EVERGRAD_UNROLL
        for (int j = 0; j < Tiles::kSub / 8; ++j) {
          EVERGRAD_UNROLL
          for (int e = 0; e < 4; ++e) {
            const int query = from + 8 * j + lane % 4 * 2 + e % 2;
            const float probability = query < end ? exp2_fast(s[j][e] * scale - lse[query]) : 0.0f;
            s[j][e] = probability;
            dp[j][e] = query < end ? p.scale * probability * (dp[j][e] - delta[query]) : 0.0f;
          }
        }
        Tiles::multiply_add(s, douts, from, lane, dv_sum);
        Tiles::multiply_add(dp, queries, from, lane, dk_sum);
      }
    }
    Tiles::store_rows(dk, row, p.tokens, lane, dk_sum, 1.0f, 1.0f, p.accumulate);
    Tiles::store_rows(dv, row, p.tokens, lane, dv_sum, 1.0f, 1.0f, p.accumulate);
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
