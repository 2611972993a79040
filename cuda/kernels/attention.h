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
  float scale;
  int chunk;  // tokens of keys (or queries) that shared memory holds at once: a multiple of 16
  bool accumulate;
};
using AttentionKernel = void (*)(AttentionParams);

inline constexpr int kAttentionWarps = 4, kTileRows = 16;  // a warp owns 16 queries (or keys)
inline constexpr int kMostPlainWidth = 256;

/// Bytes of shared memory for two arrays of `chunk` rows, one piece of 16 bytes wider than the head against bank
/// conflicts, and two numbers per row.
inline constexpr std::size_t attention_shared_bytes(int chunk, int width) {
  return std::size_t(2 * chunk) * std::size_t(width + 8) * 2 + std::size_t(2 * chunk) * 4;
}
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
