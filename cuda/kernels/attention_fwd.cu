// cuda/kernels/attention_fwd.cu - softmax attention on tensor cores, forward.
//
// Math     S = scale Q K^T, lse_i = log sum_j e^(S_ij), O = e^(S - lse) V, with the online softmax of Milakov &
//          Gimelshein 2018 (arXiv:1805.02867) as in Dao et al. 2022 (arXiv:2205.14135); exponentials in base 2, the
//          scale folded into them
// Shapes   qkv [B,N,3,H,D] read in place, out [B,N,H,D], lse [B,H,N]; D 32, 64, 80, 96 or 128
// Traffic  short sequences: q, k, v and out once, 8 B N H D bytes; long ones read k and v once per block of queries
// Work     4 B H N^2 D FLOP; in tiles of 16 x 16 tokens 1.11 times that at N = 197, 1.51 times at 65, counted on the
//          emulated device (tests/emulated/test_attention_tiles.cpp)
// Mapping  a block owns one head of one image and keeps all its keys and values in shared memory while they fit; its
//          warps take 16 queries at a time and need no barrier after the first. There are as many of them as divide
//          the tiles of queries evenly: 7 at N = 197, for two rounds, 5 at 65, for one. Longer sequences pass through
//          shared memory in chunks, and the grid's second axis divides the queries. A warp takes 64 keys at a time (32
//          where D is above 80), then 16 at a time, masked, what is left. P is rounded to bf16 for the second product,
//          its row sum is not.
// Limits   any number of tokens
#include "cuda/kernels/attention.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

template <int kWidth>
struct Softmax {
  float out[kWidth / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};  // of this lane's two rows; sum is this lane's part

  /// Takes in keys [from, from + kKeys) of the chunk; where kMasked, those at or beyond `end` do not exist.
  template <int kKeys, bool kMasked>
  __device__ __forceinline__ void take(const std::uint32_t (&q)[kWidth / 16][4], const bf16* keys, const bf16* values,
                                       int from, int end, float scale, int lane) {
    using Tiles = AttentionTiles<kWidth, kKeys>;
    float s[Tiles::kSub / 8][4];
    Tiles::multiply_transposed(q, keys, from, lane, s);
    float top[2] = {largest[0], largest[1]};
    EVERGRAD_UNROLL
    for (int j = 0; j < Tiles::kSub / 8; ++j) {
      EVERGRAD_UNROLL
      for (int e = 0; e < 4; ++e) {
        const bool exists = !kMasked || from + 8 * j + lane % 4 * 2 + e % 2 < end;
        s[j][e] = exists ? s[j][e] * scale : -INFINITY;
        top[e / 2] = fmaxf(top[e / 2], s[j][e]);
      }
    }
    EVERGRAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      top[half] = row_max(top[half]);
      const float shrink = exp2_fast(largest[half] - top[half]);
      largest[half] = top[half], sum[half] *= shrink;
      EVERGRAD_UNROLL
      for (int c = 0; c < kWidth / 8; ++c) out[c][2 * half] *= shrink, out[c][2 * half + 1] *= shrink;
    }
    EVERGRAD_UNROLL
    for (int j = 0; j < Tiles::kSub / 8; ++j) {
      EVERGRAD_UNROLL
      for (int e = 0; e < 4; ++e) {
        s[j][e] = exp2_fast(s[j][e] - top[e / 2]);
        sum[e / 2] += s[j][e];
      }
    }
    Tiles::multiply_add(s, values, from, lane, out);
  }
};

struct Arena {
  bf16 tokens[1];  // keys, then values: the length comes with the launch
};

template <int kWidth>
__global__ void __launch_bounds__(attention_most_warps(kWidth) * kWarp) attention_fwd_device(const AttentionParams p) {
  using Tiles = AttentionTiles<kWidth>;
  bf16* const keys = dynamic_shared<Arena>().tokens;
  bf16* const values = keys + p.chunk * Tiles::kPitch;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp), warps = int(blockDim.x / kWarp);
  const int tiles = (p.tokens + kTileRows - 1) / kTileRows;
  const float scale = p.scale * kLog2e;
  for (int first = int(blockIdx.y) * warps; first < tiles; first += int(gridDim.y) * warps) {
    const int row = (first + warp) * kTileRows;
    std::uint32_t rows[Tiles::kSteps][4];
    Tiles::load_rows(packed(p.qkv, p, 0, 3), row, p.tokens, lane, rows);
    Softmax<kWidth> state;
    for (int begin = 0; begin < p.tokens; begin += p.chunk) {
      if (p.chunk < p.tokens || first == int(blockIdx.y) * warps) {
        __syncthreads();  // nobody reads the chunk before any more
        Tiles::fetch(keys, packed(p.qkv, p, 1, 3), begin, p.chunk, p.tokens, int(blockDim.x));
        Tiles::fetch(values, packed(p.qkv, p, 2, 3), begin, p.chunk, p.tokens, int(blockDim.x));
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
      }
      const int end = min_of(p.chunk, p.tokens - begin);
      if (row >= p.tokens) continue;
      int from = 0;
      EVERGRAD_NO_UNROLL
      for (; from + Tiles::kSub <= end; from += Tiles::kSub)
        state.template take<Tiles::kSub, false>(rows, keys, values, from, end, scale, lane);
      EVERGRAD_NO_UNROLL
      for (; from < end; from += kTileRows)
        state.template take<kTileRows, true>(rows, keys, values, from, end, scale, lane);
    }
    const float sum[2] = {row_sum(state.sum[0]), row_sum(state.sum[1])};
    Tiles::store_rows(packed(p.out, p, 0, 1), row, p.tokens, lane, state.out, 1.0f / sum[0], 1.0f / sum[1], false);
    EVERGRAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int query = row + lane / 4 + 8 * half;
      if (lane % 4 == 0 && query < p.tokens)
        p.lse[std::int64_t(blockIdx.x) * p.tokens + query] = state.largest[half] * kLn2 + logf(sum[half]);
    }
  }
}

}  // namespace

AttentionKernel attention_fwd_kernel(int width) {
  switch (width) {
    case 32: return &attention_fwd_device<32>;
    case 64: return &attention_fwd_device<64>;
    case 80: return &attention_fwd_device<80>;
    case 96: return &attention_fwd_device<96>;
    case 128: return &attention_fwd_device<128>;
    default: return nullptr;
  }
}

}  // namespace eg::EVERGRAD_BACKEND
