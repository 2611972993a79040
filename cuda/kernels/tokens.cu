// cuda/kernels/tokens.cu - images into patches, patches into the token sequence, and what is read from it at the end
// (Dosovitskiy et al. 2021, arXiv:2010.11929).
//
// Math     patchify: pixel (top + y, left + x or mirrored), decoded from bytes, normalised, at its place in its patch's row;
//          tokens: out[b] = [prefix; patches[b]] + pos; pool: a token, or the mean of some
// Traffic  every operand once; patchify reads bytes (1 per value) and writes activations (2)
// Mapping  a thread per pack of 8 outputs (tokens), per output (patchify, pool), grid-stride; neighbours write neighbours
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
  const std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.batch * p.columns) return;
  const std::int64_t b = i / p.columns, c = i % p.columns;
  float sum = 0.0f;
  for (std::int64_t t = p.first; t < p.first + p.count; ++t) sum += load_at(p.x, (b * p.tokens + t) * p.columns + c);
  store_at(p.out, i, p.count == 1 ? sum : sum / float(p.count));
}

__global__ void __launch_bounds__(256) pool_bwd_device(const PoolParams p) {
  const std::int64_t n = p.batch * p.tokens * p.columns, stride = std::int64_t(gridDim.x) * blockDim.x;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) {
    const std::int64_t t = i / p.columns % p.tokens, b = i / (p.columns * p.tokens);
    const bool pooled = t >= p.first && t < p.first + p.count;
    const float d = pooled ? load_at(p.out, b * p.columns + i % p.columns) / float(p.count) : 0.0f;
    store_at(p.x, i, p.accumulate ? load_at(p.x, i) + d : d);
  }
}

struct Pixel {
  std::int64_t image, channel, y, x;
};
/// Which output pixel element i of [B, n, C P P] holds.
__device__ __forceinline__ Pixel pixel_of(const PatchifyParams& p, std::int64_t i, std::int64_t across, std::int64_t down) {
  const std::int64_t P = p.patch, column = i % P, row = i / P % P, patch = i / (P * P * p.channels);
  return {patch / (across * down), i / (P * P) % p.channels, patch / across % down * P + row, patch % across * P + column};
}

__global__ void __launch_bounds__(256) patchify_fwd_device(const PatchifyParams p) {
  const std::int64_t stride = std::int64_t(gridDim.x) * blockDim.x, side = p.size / p.patch;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.n; i += stride) {
    const Pixel at = pixel_of(p, i, side, side);
    std::int64_t y = at.y, x = at.x;
    if (p.crop) {
      const std::int32_t* const crop = p.crop + 3 * at.image;
      y += crop[0];
      x = crop[1] + (crop[2] != 0 ? p.size - 1 - at.x : at.x);
    }
    float value = 0.0f;
    if (y >= 0 && y < p.high && x >= 0 && x < p.wide) {
      const std::int64_t from = ((at.image * p.channels + at.channel) * p.high + y) * p.wide + x;
      value = load_at(p.images, from);
      if (p.images.type == DType::u8) value /= 255.0f;
    }
    if (p.mean.data) value -= load_at(p.mean, at.channel);
    if (p.stddev.data) value /= load_at(p.stddev, at.channel);
    store_at(p.out, i, value);
  }
}

__global__ void __launch_bounds__(256) patchify_bwd_device(const PatchifyParams p) {
  const std::int64_t stride = std::int64_t(gridDim.x) * blockDim.x;
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.n; i += stride) {
    const Pixel at = pixel_of(p, i, p.wide / p.patch, p.high / p.patch);
    const std::int64_t to = ((at.image * p.channels + at.channel) * p.high + at.y) * p.wide + at.x;
    float d = load_at(p.out, i);
    if (p.stddev.data) d /= load_at(p.stddev, at.channel);
    store_at(p.images, to, p.accumulate ? load_at(p.images, to) + d : d);
  }
}

}  // namespace

void (*tokens_kernel(bool backward))(TokensParams) { return backward ? &tokens_bwd_device : &tokens_fwd_device; }
void (*pool_kernel(bool backward))(PoolParams) { return backward ? &pool_bwd_device : &pool_fwd_device; }
void (*patchify_kernel(bool backward))(PatchifyParams) { return backward ? &patchify_bwd_device : &patchify_fwd_device; }

}  // namespace eg::EVERGRAD_BACKEND
