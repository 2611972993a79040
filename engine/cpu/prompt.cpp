// engine/cpu/prompt.cpp - a pool of prompts (Wang et al. 2022, arXiv:2112.08654). Images are independent in forward, prompts in
// backward, where the images that have a prompt are gone through in order.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#define EVERGRAD_KERNEL_BODY "engine/cpu/prompt.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {
namespace {

/// to[0 .. S-1] = indices of the S largest of `count` scores, largest first; equal ones by index, NaN last.
void choose_largest(const float* scores, std::int64_t count, std::int32_t* to, std::int64_t S) {
  const auto order = [&](std::int64_t m) { return scores[m] == scores[m] ? scores[m] : -2.0f; };
  for (std::int64_t m = 0; m < count; ++m) {
    const float own = order(m);
    std::int64_t rank = 0;
    for (std::int64_t other = 0; other < count && rank < S; ++other)
      rank += order(other) > own || (order(other) == own && other < m);
    if (rank < S) to[rank] = std::int32_t(m);
  }
}

void choose_for_all(const TensorView& chosen, std::int64_t M) {
  const std::int64_t B = chosen.dim(0), S = chosen.dim(1);
  std::int32_t* const all = chosen.as<std::int32_t>();
  std::vector<float> votes(static_cast<std::size_t>(M), 0.0f);
  for (std::int64_t i = 0; i < B * S; ++i) votes[std::size_t(all[i])] += 1.0f;
  for (std::int64_t b = 0; b < B; ++b) choose_largest(votes.data(), M, all + b * S, S);
}

/// True where image b has prompt m.
bool has(const TensorView& chosen, std::int64_t b, std::int64_t m) {
  const std::int64_t S = chosen.dim(1);
  const std::int32_t* const row = chosen.as<std::int32_t>() + b * S;
  return std::find(row, row + S, std::int32_t(m)) != row + S;
}

TensorView row_of(const TensorView& view, std::int64_t row, std::int64_t columns) {
  char* const at = static_cast<char*>(view.data) + std::size_t(row * columns) * size_of(view.dtype);
  return {at, view.dtype, {columns}};
}

}  // namespace

void prompt_match_fwd(const PromptMatchFwd& a, Stream) {
  const std::int64_t B = a.query.dim(0), M = a.keys.dim(0), S = a.chosen.dim(1);
  EVERGRAD_DISPATCH(inverse_norms, a.keys, a.key_scale, 0, M);
  parallel_for(B, 1, [&](std::int64_t b, std::int64_t, std::int64_t) {
    EVERGRAD_DISPATCH(prompt_cosines, a, b);
    choose_largest(a.cosine.as<float>() + b * M, M, a.chosen.as<std::int32_t>() + b * S, S);
  });
  if (a.batchwise) choose_for_all(a.chosen, M);
  for (std::int64_t b = 0; b < B; ++b) {
    float sum = 0.0f;
    for (std::int64_t s = 0; s < S; ++s) sum += a.cosine.as<float>()[b * M + a.chosen.as<std::int32_t>()[b * S + s]];
    a.match.as<float>()[b] = sum;
  }
}

void prompt_match_bwd(const PromptMatchBwd& a, Stream) {
  const std::int64_t B = a.query.dim(0), C = a.query.dim(1);
  parallel_for(a.keys.dim(0), 1, [&](std::int64_t m, std::int64_t, std::int64_t) {
    float* const sum = thread_scratch(std::size_t(C));
    std::fill(sum, sum + C, 0.0f);
    float cosines = 0.0f;
    for (std::int64_t b = 0; b < B; ++b) {
      if (!has(a.chosen, b, m)) continue;
      EVERGRAD_DISPATCH(add_row, a.query, b * C, a.query_scale.as<float>()[b], sum, C);
      cosines += a.cosine.as<float>()[b * a.keys.dim(0) + m];
    }
    const float key_scale = a.key_scale.as<float>()[m], outer = float(a.scale) * a.dmatch.as<float>()[0] * key_scale;
    EVERGRAD_DISPATCH(key_gradient, a.keys, m * C, -cosines * key_scale, outer, sum, C);
    write_gradient(row_of(a.dkeys, m, C), sum, a.accumulate);
  });
}

void prompt_prepend_fwd(const PromptPrependFwd& a, Stream) {
  const std::int64_t N = a.x.dim(1), S = a.chosen.dim(1);
  const std::size_t token = std::size_t(a.x.dim(2)) * size_of(a.x.dtype),
                    prompt = token * std::size_t(a.prompts.dim(1));
  const std::size_t own = token * std::size_t(N), image = std::size_t(S) * prompt + own;
  parallel_for(a.x.dim(0), 1, [&](std::int64_t b, std::int64_t, std::int64_t) {
    char* const out = static_cast<char*>(a.out.data) + std::size_t(b) * image;
    for (std::int64_t s = 0; s < S; ++s) {
      const auto m = std::size_t(a.chosen.as<std::int32_t>()[b * S + s]);
      std::memcpy(out + std::size_t(s) * prompt, static_cast<const char*>(a.prompts.data) + m * prompt, prompt);
    }
    std::memcpy(out + std::size_t(S) * prompt, static_cast<const char*>(a.x.data) + std::size_t(b) * own, own);
  });
}

void prompt_prepend_bwd(const PromptPrependBwd& a, Stream) {
  const std::int64_t B = a.dout.dim(0), tokens = a.dout.dim(1), C = a.dout.dim(2);
  const std::int64_t M = a.dprompts.dim(0), L = a.dprompts.dim(1), S = a.chosen.dim(1);
  parallel_for(M * L, 1, [&](std::int64_t row, std::int64_t, std::int64_t) {
    float* const sum = thread_scratch(std::size_t(C));
    std::fill(sum, sum + C, 0.0f);
    for (std::int64_t place = 0; place < B * S; ++place) {
      if (a.chosen.as<std::int32_t>()[place] != row / L) continue;
      const std::int64_t token = place / S * tokens + place % S * L + row % L;
      EVERGRAD_DISPATCH(add_row, a.dout, token * C, 1.0f, sum, C);
    }
    write_gradient(row_of(a.dprompts, row, C), sum, a.accumulate);
  });
}

}  // namespace eg::cpu
