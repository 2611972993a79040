// cuda/kernels/tokens.h - parameters of tokens.cu.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

struct TokensParams {
  Operand patches, prefix, pos, out;  // backward: out is dout, patches is dpatches
  std::int64_t batch, tokens, columns, patch_count, without_pos;
  bool accumulate, wide;
};
struct PoolParams {
  Operand x, out;  // backward: x is dx, out is dout
  std::int64_t batch, tokens, columns, first, count;
  bool accumulate;
};
struct PatchifyParams {
  Operand images, out, mean, stddev;  // backward: images is dimages, out is dout
  const std::int32_t* crop;
  std::int64_t n;
  int channels, high, wide, size, patch;
  bool accumulate;
};
void (*tokens_kernel(bool backward))(TokensParams);
void (*pool_kernel(bool backward))(PoolParams);
void (*patchify_kernel(bool backward))(PatchifyParams);

}  // namespace eg::EVERGRAD_BACKEND
