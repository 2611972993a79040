// cuda/kernels/prompt.cpp - host entries of prompt.cu.
#include "cuda/kernels/prompt.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {

void prompt_match_fwd(const PromptMatchFwd& a, Stream s) {
  PromptMatchParams p = {};
  p.query = operand(a.query), p.keys = operand(a.keys);
  p.query_scale = a.query_scale.as<float>(), p.key_scale = a.key_scale.as<float>();
  p.cosine = a.cosine.as<float>(), p.match = a.match.as<float>(), p.chosen = a.chosen.as<std::int32_t>();
  p.images = a.query.dim(0), p.columns = a.query.dim(1), p.prompts = a.keys.dim(0), p.select = a.chosen.dim(1);
  launch("prompt_match_fwd", prompt_match_kernel(), dim3(unsigned(ceil_div<std::int64_t>(p.images, kMatchWarps))),
         dim3(kMatchWarps * kWarp), 0, s, p);
  if (!a.batchwise) return;
  p.votes = static_cast<std::int32_t*>(scratch(s, std::size_t(2 * p.prompts) * sizeof(std::int32_t)).data);
  launch("prompt_vote", prompt_vote_kernel(), dim3(1), dim3(kVoteThreads), 0, s, p);
}

void prompt_match_bwd(const PromptMatchBwd& a, Stream s) {
  PromptMatchParams p = {};
  p.query = operand(a.query), p.keys = operand(a.keys), p.dkeys = operand(a.dkeys);
  p.query_scale = a.query_scale.as<float>(), p.key_scale = a.key_scale.as<float>();
  p.cosine = a.cosine.as<float>(), p.dmatch = a.dmatch.as<float>(), p.chosen = a.chosen.as<std::int32_t>();
  p.images = a.query.dim(0), p.columns = a.query.dim(1), p.prompts = a.keys.dim(0), p.select = a.chosen.dim(1);
  p.scale = float(a.scale), p.accumulate = a.accumulate;
  const dim3 grid(unsigned(ceil_div<std::int64_t>(p.columns, kKeyThreads)), unsigned(p.prompts));
  launch("prompt_match_bwd", prompt_match_bwd_kernel(), grid, dim3(kKeyThreads), 0, s, p);
}

void prompt_prepend_fwd(const PromptPrependFwd& a, Stream s) {
  PromptPrependParams p = {};
  p.x = operand(a.x), p.prompts = operand(a.prompts), p.out = operand(a.out), p.chosen = a.chosen.as<std::int32_t>();
  p.images = a.x.dim(0), p.own = a.x.dim(1), p.columns = a.x.dim(2);
  p.count = a.prompts.dim(0), p.length = a.prompts.dim(1), p.select = a.chosen.dim(1);
  p.wide = p.columns % kPack == 0 && wide_access({&a.x, &a.prompts, &a.out});
  const std::int64_t n = a.out.size();
  launch("prompt_prepend_fwd", prompt_prepend_kernel(false), dim3(stream_blocks(n)), dim3(stream_threads(n)), 0, s, p);
}

void prompt_prepend_bwd(const PromptPrependBwd& a, Stream s) {
  PromptPrependParams p = {};
  p.prompts = operand(a.dprompts), p.out = operand(a.dout), p.chosen = a.chosen.as<std::int32_t>();
  p.images = a.dout.dim(0), p.columns = a.dout.dim(2);
  p.count = a.dprompts.dim(0), p.length = a.dprompts.dim(1), p.select = a.chosen.dim(1);
  p.own = a.dout.dim(1) - p.select * p.length;
  p.accumulate = a.accumulate, p.wide = p.columns % kPack == 0 && wide_access({&a.dprompts, &a.dout});
  const std::int64_t n = a.dprompts.size();
  launch("prompt_prepend_bwd", prompt_prepend_kernel(true), dim3(stream_blocks(n)), dim3(stream_threads(n)), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
