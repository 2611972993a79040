// layers/block.h - one pre-norm transformer block (Dosovitskiy et al. 2020, arXiv:2010.11929):
//   x = x + drop(scale1 * proj(mix(norm1(x))));   x = x + drop(scale2 * mlp(norm2(x)))
// with layer scale (Touvron et al. 2021, arXiv:2103.17239) and stochastic depth (Huang et al. 2016, arXiv:1603.09382)
// where they are switched on.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "layers/attention.h"
#include "layers/mlp.h"
#include "layers/vit_config.h"

namespace eg {

/// A pre-norm transformer block: x + attn(norm1(x)), then x + mlp(norm2(x)), each branch with an optional layer scale.
struct Block {
  Norm norm1;
  Attention attn;
  std::optional<Param> ls1;  // gamma [C]
  Norm norm2;
  Mlp mlp;
  std::optional<Param> ls2;
  double drop_path = 0.0;  // probability that a branch is dropped, for each sample on its own
  std::string name;        // "blocks.3": names the random streams of stochastic depth
};

template <class F>
void visit_params(Block& b, F&& f) {
  visit_params(b.norm1, f), visit_params(b.attn, f);
  if (b.ls1) f(*b.ls1);
  visit_params(b.norm2, f), visit_params(b.mlp, f);
  if (b.ls2) f(*b.ls2);
}

/// Block `index` with timm's names, "blocks.<index>....".
Block make_block(const VitConfig& c, int index);

/// What the blocks hand to each other: the residual stream, and the branch that is still to be added to it (empty at
/// the start). The sum happens inside the next layer norm, so that the stream is read and written once per norm, not
/// twice.
struct ResidualStream {
  Tensor x, branch;
};

/// How a block runs this time, and who looks on.
struct BlockContext {
  double eps = 1e-6;
  const StepRecord* drop_step = nullptr;          // set: stochastic depth is on, with the masks of this step
  bool first_token_only = false;                  // after the mixing of tokens, go on with token 0 alone
  std::function<void(const Tensor&)> see_qkv;     // may be empty; gets the packed queries, keys, values [B,N,3C]
  std::function<void(const Tensor&)> see_hidden;  // may be empty; gets fc1's output [...,hidden], before the GELU
  std::function<Tensor(const Tensor&)>
      through_mixed;  // may be empty; what it returns replaces the mixed tokens [B,N,C]
};

/// in.x [B,N,C] -> {[B,N,C], [B,N,C]}, or {[B,C], [B,C]} with first_token_only. What happens to a token after the
/// mixing depends on that token alone, so the narrowed result is the first token of the full one.
ResidualStream forward(const Block& b, const ResidualStream& in, const BlockContext& c);

/// The stream with its branch added.
Tensor joined(const ResidualStream& s);

}  // namespace eg
