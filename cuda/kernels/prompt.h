// cuda/kernels/prompt.h - parameters of prompt.cu.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

struct PromptMatchParams {
  Operand query, keys, dkeys;
  float *query_scale, *key_scale, *cosine, *match;
  const float* dmatch;
  std::int32_t* chosen;
  std::int32_t* votes;  // [2 M] of working memory: how many images have a prompt, then the prompts in order
  std::int64_t images, columns, prompts, select;
  float scale;
  bool accumulate;
};
struct PromptPrependParams {
  Operand x, prompts, out;  // backward: prompts is dprompts, out is dout
  const std::int32_t* chosen;
  std::int64_t images, own, columns, count, length, select;  // own: tokens of x; count: prompts of the pool
  bool accumulate, wide;
};
inline constexpr int kMatchWarps = 4;     // images of one block
inline constexpr int kVoteThreads = 256;  // of the only block
inline constexpr int kKeyThreads = 128;
void (*prompt_match_kernel())(PromptMatchParams);
void (*prompt_vote_kernel())(PromptMatchParams);
void (*prompt_match_bwd_kernel())(PromptMatchParams);
void (*prompt_prepend_kernel(bool backward))(PromptPrependParams);

}  // namespace eg::EVERGRAD_BACKEND
