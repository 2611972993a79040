// engine/kernels_prompt.h - argument structs of the prompt pool (Wang et al. 2022, arXiv:2112.08654). Part of engine/kernels.h.
//
// Shape letters beside those there: M prompts of L tokens, S of them for each image.
#pragma once
#include "engine/tensor.h"

namespace eg {

/// cosine[b,m] = query[b] keys[m] query_scale[b] key_scale[m], where a vector's scale is 1 / sqrt(|x|^2 + 1e-12).
/// chosen[b]: the S largest, largest first; equal ones, and NaN after all others, by index. With batchwise every image gets
/// the S prompts that most images chose instead (equal counts by index). match[b] = sum of cosine[b] over chosen[b].
struct PromptMatchFwd {
  TensorView query /*[B,C] x*/, keys /*[M,C] x*/;
  TensorView query_scale /*stat [B]*/, key_scale /*stat [M]*/, cosine /*stat [B,M]*/;
  TensorView chosen /*i32 [B,S]*/, match /*stat [B]*/;
  bool batchwise = false;
};
/// dkeys[m] (+)= scale dmatch[0] key_scale[m] sum of (query[b] query_scale[b] - cosine[b,m] key_scale[m] keys[m]) over the
/// images b that have m among chosen[b]: the gradient of scale times the sum of match. No gradient reaches the query.
struct PromptMatchBwd {
  TensorView query, keys, query_scale, key_scale, cosine, chosen, dmatch /*stat [1]*/, dkeys;
  double scale = 1.0;
  bool accumulate = false;
};

/// out[b] = concat(prompts[chosen[b,0]], ..., prompts[chosen[b,S-1]], x[b]).
struct PromptPrependFwd {
  TensorView x /*[B,N,C] x*/, prompts /*[M,L,C] x*/, chosen /*i32 [B,S]*/, out /*[B,S L + N,C] x*/;
};
/// dprompts[m] (+)= sum of dout[b, s L .. s L + L-1] over the places (b, s) with chosen[b,s] == m, in their order. (The
/// gradient of x is tokens_bwd's dpatches.)
struct PromptPrependBwd {
  TensorView dout, chosen, dprompts;
  bool accumulate = false;
};

}  // namespace eg
