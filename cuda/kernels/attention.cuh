// cuda/kernels/attention.cuh - what the tensor-core kernels of attention share: where vectors lie, tiles in
// shared memory, fragments.
#pragma once
#include "cuda/kernels/attention.h"

namespace eg::EVERGRAD_BACKEND {

inline constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

/// One head of one image in an array of packed vectors.
struct HeadOf {
  bf16* at;    // vector of token 0
  int stride;  // elements from one token to the next
};
__device__ __forceinline__ HeadOf packed(const Operand& o, const AttentionParams& p, int part, int parts,
                                         std::int64_t image, int head, int heads) {
  const int stride = parts * heads * p.width;
  return {static_cast<bf16*>(o.data) + image * p.tokens * stride + (part * std::int64_t(heads) + head) * p.width,
          stride};
}
/// In a grid of images x heads along one axis. Called where the head is read or written: kept through the loops, its
/// address would take registers from the sums.
__device__ __forceinline__ HeadOf packed(const Operand& o, const AttentionParams& p, int part, int parts) {
  const int block = reread_block_x();
  return packed(o, p, part, parts, block / p.heads, block % p.heads, p.heads);
}

/// Two neighbours of a row, rounded.
__device__ __forceinline__ void store_pair(bf16* to, float x, float y, bool accumulate) {
  if (accumulate) {
    const auto old = load_vec<Vec<bf16, 2>>(to);
    x += float(old.v[0]), y += float(old.v[1]);
  }
  Vec<bf16, 2> out;
  out.v[0] = to_bf16(x), out.v[1] = to_bf16(y);
  store_vec(to, out);
}

/// kAtOnce: keys (or queries) in registers at once.
template <int kWidth, int kAtOnce = (kWidth > 80 ? 32 : 64)>
struct AttentionTiles {
  static constexpr int kPitch = kWidth + 8;   // an odd number of 16-byte pieces: eight rows lie in different banks
  static constexpr int kSteps = kWidth / 16;  // along the head width
  static constexpr int kSub = kAtOnce;

  /// Starts the copy of `chunk` tokens from token `first`; what lies beyond the last token becomes zero.
  static __device__ __forceinline__ void fetch(bf16* to, const HeadOf& h, int first, int chunk, int tokens,
                                               int threads) {
    constexpr int kPieces = kWidth / 8;
    for (int n = int(threadIdx.x); n < chunk * kPieces; n += threads) {
      const int r = n / kPieces, piece = n % kPieces;
      const bool inside = first + r < tokens;
      cp_async_16(to + r * kPitch + piece * 8, h.at + (inside ? std::int64_t(first + r) * h.stride + piece * 8 : 0),
                  inside);
    }
  }
  /// 16 rows from token `first` as fragments of a left operand, straight from memory.
  static __device__ __forceinline__ void load_rows(const HeadOf& h, int first, int tokens, int lane,
                                                   std::uint32_t (&r)[kSteps][4]) {
    EVERGRAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = first + lane / 4 + 8 * half;
      EVERGRAD_UNROLL
      for (int k = 0; k < kSteps; ++k) {
        EVERGRAD_UNROLL
        for (int right = 0; right < 2; ++right) {
          std::uint32_t pair = 0;
          if (row < tokens) {
            const auto v =
                load_vec<Vec<bf16, 2>>(h.at + std::int64_t(row) * h.stride + 16 * k + 8 * right + lane % 4 * 2);
            pair = std::uint32_t(v.v[0].bits) | std::uint32_t(v.v[1].bits) << 16;
          }
          r[k][half + 2 * right] = pair;
        }
      }
    }
  }
  /// s = rows times the transposed rows [from, from + kSub) of a tile: 16 x kSub products of vectors.
  static __device__ __forceinline__ void multiply_transposed(const std::uint32_t (&rows)[kSteps][4], const bf16* tile,
                                                             int from, int lane, float (&s)[kSub / 8][4]) {
    EVERGRAD_UNROLL
    for (int j = 0; j < kSub / 8; ++j) {
      EVERGRAD_UNROLL
      for (int e = 0; e < 4; ++e) s[j][e] = 0.0f;
    }
    EVERGRAD_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      EVERGRAD_UNROLL
      for (int j = 0; j < kSub / 8; j += 2) {
        std::uint32_t pair[4];
        ldmatrix_x4(pair, tile + (from + 8 * j + lane / 16 * 8 + lane % 8) * kPitch + 16 * k + lane / 8 % 2 * 8);
        const std::uint32_t left[2] = {pair[0], pair[1]}, right[2] = {pair[2], pair[3]};
        mma_16816(s[j], rows[k], left);
        mma_16816(s[j + 1], rows[k], right);
      }
    }
  }
  /// d += w times rows [from, from + kSub) of a tile; w, 16 x kSub, is rounded to bf16.
  static __device__ __forceinline__ void multiply_add(const float (&w)[kSub / 8][4], const bf16* tile, int from,
                                                      int lane, float (&d)[kWidth / 8][4]) {
    EVERGRAD_UNROLL
    for (int j = 0; j < kSub / 8; j += 2) {
      const std::uint32_t a[4] = {pack_bf16(w[j][0], w[j][1]), pack_bf16(w[j][2], w[j][3]),
                                  pack_bf16(w[j + 1][0], w[j + 1][1]), pack_bf16(w[j + 1][2], w[j + 1][3])};
      EVERGRAD_UNROLL
      for (int c = 0; c < kWidth / 8; c += 2) {
        std::uint32_t pair[4];
        ldmatrix_x4_trans(pair, tile + (from + 8 * j + lane % 16) * kPitch + 8 * c + lane / 16 * 8);
        const std::uint32_t left[2] = {pair[0], pair[1]}, right[2] = {pair[2], pair[3]};
        mma_16816(d[c], a, left);
        mma_16816(d[c + 1], a, right);
      }
    }
  }
  /// Stores (or adds) 16 rows times a factor per half: rows lane / 4 and lane / 4 + 8.
  static __device__ __forceinline__ void store_rows(const HeadOf& h, int first, int tokens, int lane,
                                                    const float (&d)[kWidth / 8][4], float upper, float lower,
                                                    bool accumulate) {
    EVERGRAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = first + lane / 4 + 8 * half;
      if (row >= tokens) continue;
      const float factor = half ? lower : upper;
      EVERGRAD_UNROLL
      for (int c = 0; c < kWidth / 8; ++c)
        store_pair(h.at + std::int64_t(row) * h.stride + 8 * c + lane % 4 * 2, d[c][2 * half] * factor,
                   d[c][2 * half + 1] * factor, accumulate);
    }
  }
};

/// Over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float v) {
  v += __shfl_xor_sync(kFullMask, v, 1);
  return v + __shfl_xor_sync(kFullMask, v, 2);
}
__device__ __forceinline__ float row_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(kFullMask, v, 1));
  return fmaxf(v, __shfl_xor_sync(kFullMask, v, 2));
}

/// This lane's part of sum over d of a b, for its two rows.
template <int kSteps>
__device__ __forceinline__ void dot_rows(const std::uint32_t (&a)[kSteps][4], const std::uint32_t (&b)[kSteps][4],
                                         float (&sum)[2]) {
  sum[0] = sum[1] = 0.0f;
  EVERGRAD_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    EVERGRAD_UNROLL
    for (int e = 0; e < 4; ++e) {
      float a0, a1, b0, b1;
      unpack_bf16(a[k][e], a0, a1), unpack_bf16(b[k][e], b0, b1);
      sum[e % 2] += a0 * b0 + a1 * b1;
    }
  }
}

}  // namespace eg::EVERGRAD_BACKEND
