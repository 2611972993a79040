// cuda/kernels/prompt.cu - a pool of prompts (Wang et al. 2022, arXiv:2112.08654): choice by cosine, and gather.
//
// Math     cosine[b,m] = q_b . k_m / (|q_b| |k_m|); chosen[b] = the S largest, or those that most images have;
//          dk_m = scale sum over the images that have m of (q^_b - cosine k^_m) / |k_m|; out[b] = [prompts[chosen[b]]; x[b]]
// Shapes   query [B,C], keys [M,C], chosen [B,S], prompts [M,L,C], x [B,N,C], out [B,S L + N,C]
// Traffic  match: every image reads all keys (from the cache, M is some ten); prepend: every operand once
// Work     match: 4 B M C FLOP and B M^2 comparisons; votes: M B S; gradients: an addition per image that chose the prompt
// Mapping  match: a warp per image, a lane per key where ranks are counted; votes: one block; gradients: a thread per element
//          or pack of the result, which goes over the images in order, so that no sum needs an atomic
// Limits   any sizes; the rank of a key is counted by comparing it with all others, meant for pools of at most some hundreds
#include "cuda/kernels/prompt.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// How many of the scores stand before number m: larger ones, and equal ones of lower index; NaN stands last.
template <class F>
__device__ __forceinline__ std::int64_t rank_of(std::int64_t m, std::int64_t count, const F& score) {
  const float own = score(m);
  std::int64_t rank = 0;
  for (std::int64_t other = 0; other < count; ++other) {
    const float s = score(other);
    rank += s > own || (s == own && other < m) ? 1 : 0;
  }
  return rank;
}

__device__ __forceinline__ void sum_chosen(const PromptMatchParams& p, std::int64_t b) {
  float sum = 0.0f;
  for (std::int64_t s = 0; s < p.select; ++s) sum += p.cosine[b * p.prompts + p.chosen[b * p.select + s]];
  p.match[b] = sum;
}

/// One image, by one warp.
__device__ __forceinline__ void match_image(const PromptMatchParams& p, std::int64_t b, int lane) {
  float square = 0.0f;
  for (std::int64_t c = lane; c < p.columns; c += kWarp) {
    const float q = load_at(p.query, b * p.columns + c);
    square += q * q;
  }
  const float query_scale = 1.0f / sqrtf(warp_sum(square) + 1e-12f);
  if (lane == 0) p.query_scale[b] = query_scale;
  for (std::int64_t m = 0; m < p.prompts; ++m) {
    float dot = 0.0f, key_square = 0.0f;
    for (std::int64_t c = lane; c < p.columns; c += kWarp) {
      const float k = load_at(p.keys, m * p.columns + c);
      dot += load_at(p.query, b * p.columns + c) * k, key_square += k * k;
    }
    dot = warp_sum(dot), key_square = warp_sum(key_square);
    const float key_scale = 1.0f / sqrtf(key_square + 1e-12f);
    if (lane != 0) continue;
    if (b == 0) p.key_scale[m] = key_scale;  // the same bits in every warp
    p.cosine[b * p.prompts + m] = dot * query_scale * key_scale;
  }
  __syncwarp();
  const float* const row = p.cosine + b * p.prompts;
  for (std::int64_t m = lane; m < p.prompts; m += kWarp) {
    const std::int64_t rank = rank_of(m, p.prompts, [&](std::int64_t i) { return row[i] == row[i] ? row[i] : -2.0f; });
    if (rank < p.select) p.chosen[b * p.select + rank] = std::int32_t(m);
  }
  __syncwarp();
  if (lane == 0) sum_chosen(p, b);
}

__global__ void __launch_bounds__(kMatchWarps* kWarp) prompt_match_device(const PromptMatchParams p) {
  const std::int64_t b = std::int64_t(blockIdx.x) * kMatchWarps + threadIdx.x / kWarp;
  if (b < p.images) match_image(p, b, int(threadIdx.x % kWarp));
}

/// Gives every image the prompts that most images chose. One block.
__global__ void __launch_bounds__(kVoteThreads) prompt_vote_device(const PromptMatchParams p) {
  std::int32_t* const winners = p.votes + p.prompts;
  for (std::int64_t m = threadIdx.x; m < p.prompts; m += kVoteThreads) {
    std::int32_t count = 0;
    for (std::int64_t i = 0; i < p.images * p.select; ++i) count += p.chosen[i] == std::int32_t(m) ? 1 : 0;
    p.votes[m] = count;
  }
  __syncthreads();
  for (std::int64_t m = threadIdx.x; m < p.prompts; m += kVoteThreads)
    winners[rank_of(m, p.prompts, [&](std::int64_t i) { return float(p.votes[i]); })] = std::int32_t(m);
  __syncthreads();
  for (std::int64_t b = threadIdx.x; b < p.images; b += kVoteThreads) {
    for (std::int64_t s = 0; s < p.select; ++s) p.chosen[b * p.select + s] = winners[s];
    sum_chosen(p, b);
  }
}

__device__ __forceinline__ bool has_prompt(const PromptMatchParams& p, std::int64_t b, std::int64_t m) {
  bool found = false;
  for (std::int64_t s = 0; s < p.select; ++s) found = found || p.chosen[b * p.select + s] == std::int32_t(m);
  return found;
}

__global__ void __launch_bounds__(kKeyThreads) prompt_match_bwd_device(const PromptMatchParams p) {
  const std::int64_t m = blockIdx.y, c = std::int64_t(blockIdx.x) * kKeyThreads + threadIdx.x;
  if (c >= p.columns) return;
  float sum = 0.0f, cosines = 0.0f;
  for (std::int64_t b = 0; b < p.images; ++b) {
    if (!has_prompt(p, b, m)) continue;
    sum += load_at(p.query, b * p.columns + c) * p.query_scale[b];
    cosines += p.cosine[b * p.prompts + m];
  }
  const std::int64_t i = m * p.columns + c;
  const float key_scale = p.key_scale[m];
  const float d = p.scale * p.dmatch[0] * key_scale * (sum - cosines * key_scale * load_at(p.keys, i));
  store_at(p.dkeys, i, p.accumulate ? load_at(p.dkeys, i) + d : d);
}

__global__ void __launch_bounds__(256) prompt_prepend_fwd_device(const PromptPrependParams p) {
  const std::int64_t prefix = p.select * p.length, tokens = prefix + p.own;
  for_each_pack(p.images * tokens * p.columns, p.wide, [&](std::int64_t i, int count, bool wide) {
    for (std::int64_t e = i; e < i + (wide ? 1 : count); ++e) {  // a wide pack lies in one token
      const std::int64_t c = e % p.columns, t = e / p.columns % tokens, b = e / (p.columns * tokens);
      const bool own = t >= prefix;
      const std::int64_t row =
          own ? b * p.own + t - prefix : p.chosen[b * p.select + t / p.length] * p.length + t % p.length;
      const Operand from = {own ? p.x.data : p.prompts.data, p.x.type};
      if (wide) {
        float v[kPack];
        load_pack(from, row * p.columns + c, v), store_pack(p.out, i, v);
      } else {
        store_at(p.out, e, load_at(from, row * p.columns + c));
      }
    }
  });
}

/// Calls f(place in dout) for every place that prompt m was put, in the order of the images; `rest` counts inside the prompt.
template <class F>
__device__ __forceinline__ void for_each_place(const PromptPrependParams& p, std::int64_t m, std::int64_t rest,
                                               const F& f) {
  const std::int64_t tokens = p.select * p.length + p.own;
  for (std::int64_t place = 0; place < p.images * p.select; ++place)
    if (p.chosen[place] == std::int32_t(m))
      f((place / p.select * tokens + place % p.select * p.length) * p.columns + rest);
}

__global__ void __launch_bounds__(256) prompt_prepend_bwd_device(const PromptPrependParams p) {
  const std::int64_t prompt = p.length * p.columns;
  for_each_pack(p.count * prompt, p.wide, [&](std::int64_t i, int count, bool wide) {
    if (wide) {  // the width is a multiple of 8: a pack lies in one prompt
      float sum[kPack] = {}, old[kPack] = {};
      for_each_place(p, i / prompt, i % prompt, [&](std::int64_t at) {
        float d[kPack];
        load_pack(p.out, at, d);
        EVERGRAD_UNROLL
        for (int k = 0; k < kPack; ++k) sum[k] += d[k];
      });
      if (p.accumulate) load_pack(p.prompts, i, old);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) sum[k] += old[k];
      store_pack(p.prompts, i, sum);
    } else {
      for (std::int64_t e = i; e < i + count; ++e) {
        float sum = 0.0f;
        for_each_place(p, e / prompt, e % prompt, [&](std::int64_t at) { sum += load_at(p.out, at); });
        store_at(p.prompts, e, p.accumulate ? load_at(p.prompts, e) + sum : sum);
      }
    }
  });
}

}  // namespace

void (*prompt_match_kernel())(PromptMatchParams) { return &prompt_match_device; }
void (*prompt_vote_kernel())(PromptMatchParams) { return &prompt_vote_device; }
void (*prompt_match_bwd_kernel())(PromptMatchParams) { return &prompt_match_bwd_device; }
void (*prompt_prepend_kernel(bool backward))(PromptPrependParams) {
  return backward ? &prompt_prepend_bwd_device : &prompt_prepend_fwd_device;
}

}  // namespace eg::EVERGRAD_BACKEND
