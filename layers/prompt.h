// layers/prompt.h - learning to prompt (L2P; Wang et al. 2022, arXiv:2112.08654): a frozen Vision Transformer learns tasks by
// a pool of prompts, tokens that are put in front of an image's own. Every prompt has a key; an image gets the prompts whose
// keys are nearest to its query, the class token's feature of the network without prompts. Prompts come after the positions
// were added, so they have none, and the head reads the mean of what became of them.
#pragma once
#include "autograd/functions.h"
#include "layers/param.h"
#include "layers/vit_config.h"

namespace eg {

/// The pool: what is learned beside the head.
struct Prompts {
  Param prompts, keys;  // [M,L,C], [M,C]; called "prompt.prompts" and "prompt.keys"
};

template <class F>
void visit_params(Prompts& p, F&& f) {
  f(p.prompts), f(p.keys);
}

/// Uniform within +-0.01: the scale of the released code, which draws from 0 to 0.01, so that all its keys begin in nearly one
/// direction. Its port to PyTorch has +-1: no worse on pre-trained weights, but in a network of small random ones nothing
/// that attention adds shows beside such prompts.
Prompts make_prompts(const VitConfig& c);

/// What a network with a pool goes on with.
struct Prompted {
  Tensor tokens;  // [B,S L + N,C]
  Tensor loss;    // statistic dtype [1]: -pull / batch times the sum of cosines between queries and the keys they chose
};
/// tokens [B,N,C] with positions, query [B,C] -> tokens with prompts. `batch`: images that the loss is averaged over, of
/// which these may be a part (--accumulate); those of a part choose together.
Prompted prepend(const Prompts& p, const PromptPool& pool, const Tensor& tokens, const Tensor& query, bool training,
                 double batch);

}  // namespace eg
