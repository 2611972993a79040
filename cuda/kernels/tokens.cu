// cuda/kernels/tokens.cu - patches into the token sequence, and what is read from it at the end (Dosovitskiy et al.
// 2021, arXiv:2010.11929).
//
// Math     tokens: out[b] = [prefix; patches[b]] + pos; pool: a token, or the mean of some
// Shapes   patches [B,n,C], prefix [p,C], pos [p+n or n, C], out and x [B,N,C], pooled [B,C]
// Traffic  every operand once
// Work     an addition an element: bound by memory
// Mapping  a thread per pack of 8 neighbours, grid-stride; pool forward goes down the tokens of its pack
// Limits   any sizes; widths that are no multiple of 8 go element by element
#include "cuda/kernels/tokens.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// Value of element c of token t of image b, before it is rounded.
__device__ __forceinline__ float token_value(const TokensParams& p, std::int64_t b, std::int64_t t, std::int64_t c) {
  const std::int64_t prefix = p.tokens - p.patch_count;
  const float own = t < prefix ? load_at(p.prefix, t * p.columns + c)
                               : load_at(p.patches, (b * p.patch_count + t - prefix) * p.columns + c);
  return t >= p.without_pos ? own + load_at(p.pos, (t - p.without_pos) * p.columns + c) : own;
}

__global__ void __launch_bounds__(256) tokens_fwd_device(const TokensParams p) {
  const std::int64_t n = p.batch * p.tokens * p.columns;
  for_each_pack(n, p.wide, [&](std::int64_t i, int count, bool wide) {
    float v[kPack], add[kPack] = {};
    if (wide) {  // the width is a multiple of 8: a pack lies in one token
      const std::int64_t c = i % p.columns, t = i / p.columns % p.tokens, b = i / (p.columns * p.tokens);
      const std::int64_t prefix = p.tokens - p.patch_count;
      if (t < prefix)
        load_pack(p.prefix, t * p.columns + c, v);
      else
        load_pack(p.patches, (b * p.patch_count + t - prefix) * p.columns + c, v);
      if (t >= p.without_pos) load_pack(p.pos, (t - p.without_pos) * p.columns + c, add);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) v[k] += add[k];
      store_pack(p.out, i, v);
    } else {
      for (int k = 0; k < count; ++k) {
        const std::int64_t e = i + k;
        store_at(p.out, e, token_value(p, e / (p.columns * p.tokens), e / p.columns % p.tokens, e % p.columns));
      }
    }
  });
}

__global__ void __launch_bounds__(256) tokens_bwd_device(const TokensParams p) {
  const std::int64_t per_image = p.patch_count * p.columns, skip = (p.tokens - p.patch_count) * p.columns;
  for_each_pack(p.batch * per_image, p.wide, [&](std::int64_t i, int count, bool wide) {
    float v[kPack], old[kPack] = {};
    if (wide) {
      load_pack(p.out, i + (i / per_image + 1) * skip, v);
      if (p.accumulate) load_pack(p.patches, i, old);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) v[k] += old[k];
      store_pack(p.patches, i, v);
    } else {
      for (int k = 0; k < count; ++k) {
        const std::int64_t e = i + k;
        const float d = load_at(p.out, e + (e / per_image + 1) * skip);
        store_at(p.patches, e, p.accumulate ? load_at(p.patches, e) + d : d);
      }
    }
  });
}

__global__ void __launch_bounds__(256) pool_fwd_device(const PoolParams p) {
  for_each_pack(p.batch * p.columns, p.wide, [&](std::int64_t i, int count, bool wide) {
    if (wide) {  // the width is a multiple of 8: a pack lies in one image
      const std::int64_t at = (i / p.columns * p.tokens + p.first) * p.columns + i % p.columns;
      float sum[kPack] = {};
      for (std::int64_t t = 0; t < p.count; ++t) {
        float v[kPack];
        load_pack(p.x, at + t * p.columns, v);
        EVERGRAD_UNROLL
        for (int k = 0; k < kPack; ++k) sum[k] += v[k];
      }
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) sum[k] /= float(p.count);
      store_pack(p.out, i, sum);
    } else {
      for (std::int64_t e = i; e < i + count; ++e) {
        const std::int64_t at = (e / p.columns * p.tokens + p.first) * p.columns + e % p.columns;
        float sum = 0.0f;
        for (std::int64_t t = 0; t < p.count; ++t) sum += load_at(p.x, at + t * p.columns);
        store_at(p.out, e, sum / float(p.count));
      }
    }
  });
}

/// Place in the pooled gradient of what element i of x gets, or -1 where that is nothing.
__device__ __forceinline__ std::int64_t source_of(const PoolParams& p, std::int64_t i) {
  const std::int64_t token = i / p.columns, image = token / p.tokens, t = token - image * p.tokens - p.first;
  return t >= 0 && t < p.count ? image * p.columns + i - token * p.columns : -1;
}

// Four blocks a multiprocessor suffice; for more, ptxas would spill.
__global__ void __launch_bounds__(256, 4) pool_bwd_device(const PoolParams p) {
  const float share = 1.0f / float(p.count);
  for_each_pack(p.batch * p.tokens * p.columns, p.wide, [&](std::int64_t i, int count, bool wide) {
    if (wide) {
      const std::int64_t from = source_of(p, i);
      float d[kPack] = {}, old[kPack] = {};
      if (from >= 0) load_pack(p.out, from, d);
      if (p.accumulate) load_pack(p.x, i, old);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) d[k] = old[k] + d[k] * share;
      store_pack(p.x, i, d);
    } else {
      for (std::int64_t e = i; e < i + count; ++e) {
        const std::int64_t from = source_of(p, e);
        const float d = from >= 0 ? load_at(p.out, from) * share : 0.0f;
        store_at(p.x, e, p.accumulate ? load_at(p.x, e) + d : d);
      }
    }
  });
}

}  // namespace

void (*tokens_kernel(bool backward))(TokensParams) { return backward ? &tokens_bwd_device : &tokens_fwd_device; }
void (*pool_kernel(bool backward))(PoolParams) { return backward ? &pool_bwd_device : &pool_fwd_device; }

}  // namespace eg::EVERGRAD_BACKEND
