// cuda/kernels/attention.h - parameters of the attention kernels.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

/// One call for all heads of all images. Element (image b, token n, part, head h, d) of qkv is at
/// (((b N + n) 3 + part) H + h) D + d; of out, dout at ((b N + n) H + h) D + d; of lse, delta, entropy at (b H + h) N +
/// n.
struct AttentionParams {
  Operand qkv, out, dout, dqkv;
  float *lse, *delta, *entropy, *map;
  std::int64_t images;
  int tokens, heads, width;
  float scale, scale2;  // scale2 = scale log2 e
  int chunk;            // tokens of keys (or queries) that shared memory holds at once: a multiple of 16
  bool accumulate;
};
using AttentionKernel = void (*)(AttentionParams);

inline constexpr int kAttentionWarps = 4, kTileRows = 16;  // a warp owns 16 queries (or keys)
inline constexpr int kMostPlainWidth = 256;
/// Most warps of a block of the forward kernel. More share a head's keys and values; with wide heads, whose warps need
/// more registers, fewer blocks would fit on a multiprocessor.
inline constexpr int attention_most_warps(int width) { return width <= 64 ? 8 : 4; }

/// Bytes of shared memory for two arrays of `chunk` rows, one piece of 16 bytes wider than the head against bank
/// conflicts, and two numbers per row.
inline constexpr std::size_t attention_shared_bytes(int chunk, int width) {
  return std::size_t(2 * chunk) * std::size_t(width + 8) * 2 + std::size_t(2 * chunk) * 4;
}
/// The backward pass of a short sequence in one kernel, whose warps each own 16 keys, in one round over the queries or, for
/// more keys, in two: most warps of a block, so that the registers of a multiprocessor suffice (16384 in each quarter).
/// 0 for a width without that kernel.
inline constexpr int attention_bwd_short_warps(int width, int groups) {
  switch (width) {
    case 32: return 16;
    case 64: return groups == 1 ? 16 : 12;
    case 80:
    case 96:
    case 128: return 8;
    default: return 0;
  }
}
inline constexpr int kShortQueries = 32;  // that pass through shared memory at once
struct ShortShape {
  int groups, warps;  // 0 groups: too long
};
inline constexpr ShortShape attention_bwd_short_shape(int tokens, int width) {
  const int tiles = (tokens + kTileRows - 1) / kTileRows;
  for (int groups = 1; groups <= 2 && tiles > 0; ++groups)
    if (const int warps = (tiles + groups - 1) / groups; warps <= attention_bwd_short_warps(width, groups))
      return {groups, warps};
  return {0, 0};
}
/// Keys; two stages of queries and dO; two arrays of dS; lse and delta; dQ in fp32 where there are two groups.
inline constexpr std::size_t attention_bwd_short_bytes(int tokens, int width) {
  const ShortShape s = attention_bwd_short_shape(tokens, width);
  const std::size_t keys = std::size_t(s.warps) * kTileRows, pitch = std::size_t(width) + 8;
  const std::size_t queries = std::size_t((tokens + kShortQueries - 1) / kShortQueries) * kShortQueries;
  return 2 * (keys * pitch + 4 * kShortQueries * pitch + 2 * keys * (kShortQueries + 8)) +
         4 * queries * (2 + (s.groups > 1 ? pitch : 0));
}
/// Null for a width without a tensor-core kernel.
AttentionKernel attention_bwd_short_kernel(int width, int groups);
/// Null for a width without a tensor-core kernel (those are 32, 64, 80, 96, 128).
AttentionKernel attention_fwd_kernel(int width);
AttentionKernel attention_bwd_queries_kernel(int width);
AttentionKernel attention_bwd_keys_kernel(int width);
// Any type and width up to kMostPlainWidth.
AttentionKernel attention_fwd_plain_kernel();
AttentionKernel attention_bwd_queries_plain_kernel();
AttentionKernel attention_bwd_keys_plain_kernel();
/// Row entropy and attention map, from qkv and lse.
AttentionKernel attention_probe_kernel();

}  // namespace eg::EVERGRAD_BACKEND
