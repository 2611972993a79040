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
  bool accumulate, wide;
};
void (*tokens_kernel(bool backward))(TokensParams);
void (*pool_kernel(bool backward))(PoolParams);

}  // namespace eg::EVERGRAD_BACKEND
