// apps/diagnosis/attention_flow.h - from which tokens the answer comes, over all blocks at once. Plain loops in double on
// the host, for one image.
//
// A single block's attention says which tokens it mixes, but above the first block every token is a mixture already. Two
// ways to follow the mixtures back to the patches:
//   rollout    Abnar and Zuidema 2020, arXiv:2005.00928: A_l = (mean over heads of attention + I) / 2, product over blocks
//   relevance  Chefer, Gur and Wolf 2021, arXiv:2103.15679: A_l = mean over heads of max(0, attention x its gradient),
//              R = (I + A_L) ... (I + A_1); the gradient is that of one class's logit, so the map answers "why this class"
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "apps/diagnosis/attention_maps.h"

namespace eg {

/// Which rows of a matrix over tokens make the answer: the class token's (row 0), or, where the head reads a mean, the
/// mean of the patches' rows, or of the prompts', which stand first.
struct Readout {
  bool class_token = true;
  std::int64_t prefix = 1;   // tokens in front of the patches, prompts among them
  std::int64_t prompts = 0;  // above 0: the head reads their mean
};

/// What the readout takes from each patch, one number per patch, through all blocks (first block first). The blocks' maps
/// are of one image: [1, heads, tokens, tokens]. Rollout's numbers with those of the prefix sum to 1.
std::vector<double> attention_rollout(std::span<const AttentionMaps> blocks, const Readout& readout);

/// gradients[l]: d logit / d attention of block l, laid out as its maps. What a token takes from itself through the
/// residual stream alone is left out for the class token and part of the map for the mean of the patches.
std::vector<double> attention_relevance(std::span<const AttentionMaps> blocks,
                                        std::span<const std::vector<double>> gradients, const Readout& readout);

/// d logit / d attention [images, heads, tokens, tokens] from the gradient that reaches what attention mixed,
/// dout [images, tokens, heads D], and the packed qkv [images, tokens, 3 heads D]: the product of dout with v^T, by head.
std::vector<double> attention_gradient(std::span<const double> qkv, std::span<const double> dout, std::int64_t images,
                                       std::int64_t tokens, std::int64_t heads);

/// The readout's row of one head's map, one number per patch.
std::vector<double> patch_attention(const AttentionMaps& maps, std::int64_t image, std::int64_t head,
                                    const Readout& readout);

}  // namespace eg
