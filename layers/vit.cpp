// layers/vit.cpp - from images to logits.
#include "layers/vit.h"

#include <algorithm>

namespace eg {
namespace {

/// Ties row i of fc1's weight, entry i of its bias and column i of fc2's weight together, as indices into the list.
void link_units(Vit& v) {
  const std::vector<Param*> all = parameters(v);
  const auto index = [&](const Param& p) { return int(std::find(all.begin(), all.end(), &p) - all.begin()); };
  for (Block& b : v.blocks) {
    const UnitLink link{index(b.mlp.fc1.weight), index(b.mlp.fc1.bias), index(b.mlp.fc2.weight), index(b.mlp.fc2.bias)};
    b.mlp.fc1.weight.link = b.mlp.fc1.bias.link = b.mlp.fc2.weight.link = link;
  }
}

BlockContext block_context(const Vit& v, int index, const VitContext& c, bool class_token_only) {
  BlockContext b;
  b.eps = v.config.eps;
  if (c.training) b.drop_step = c.step;
  b.first_token_only = class_token_only && index + 1 == v.config.depth;
  if (c.probe && c.probe->hidden)
    b.see_hidden = [index, probe = c.probe](const Tensor& z) { probe->hidden(index, z.detached()); };
  if (c.probe && c.probe->qkv)
    b.see_qkv = [index, probe = c.probe](const Tensor& qkv) { probe->qkv(index, qkv.detached()); };
  if (c.probe && c.probe->mixed)
    b.through_mixed = [index, probe = c.probe](const Tensor& mixed) { return probe->mixed(index, mixed); };
  return b;
}

/// One block whose inner activations are not kept.
ResidualStream recomputed(Vit& v, int index, const ResidualStream& in, const BlockContext& c) {
  std::vector<Tensor> used;
  visit_params(v.blocks[std::size_t(index)], [&](const Param& p) { used.push_back(p.value); });
  return {recompute(joined(in), used,
                    [&block = v.blocks[std::size_t(index)], c](const Tensor& x) {
                      return joined(forward(block, {x, {}}, c));
                    }),
          {}};
}

/// The residual stream behind the last block; with class_token_only that of the class token, [B,C].
ResidualStream through_blocks(Vit& v, const Tensor& tokens, const VitContext& c, bool class_token_only) {
  ResidualStream s{tokens, {}};
  for (int i = 0; i < v.config.depth; ++i) {
    if (c.reads) c.reads(i);
    const BlockContext context = block_context(v, i, c, class_token_only);
    s = v.config.recompute ? recomputed(v, i, s, context) : forward(v.blocks[std::size_t(i)], s, context);
    if (c.probe && c.probe->tokens)
      c.probe->tokens(i, joined({s.x.detached(), s.branch ? s.branch.detached() : Tensor{}}));
  }
  return s;
}

/// What the head reads of the last block's stream.
Tensor pooled(const Vit& v, const ResidualStream& s) {
  const VitConfig& f = v.config;
  if (f.pools_mean() && f.norm_first) return pool_tokens(forward(v.norm, joined(s), f.eps), f.prefix(), f.patches());
  if (f.pools_mean()) return forward(v.norm, pool_tokens(joined(s), f.prefix(), f.patches()), f.eps);
  // The norm works on each token alone, so it may come after the choice of the token.
  const auto token = [](const Tensor& t) { return t && t.rank() == 3 ? pool_tokens(t, 0, 1) : t; };
  const Tensor x = token(s.x), branch = token(s.branch);
  return branch ? forward(v.norm, x, branch, f.eps).second : forward(v.norm, x, f.eps);
}

/// Features of a network with a prompt pool, whose blocks run twice: without prompts for the query, then with them.
Tensor prompted_features(Vit& v, const Tensor& tokens, const VitContext& c) {
  const Tensor query = pooled(v, through_blocks(v, tokens, {}, v.config.narrow_last));
  const double batch = c.batch > 0.0 ? c.batch : double(tokens.dim(0));
  const Prompted p = prepend(*v.prompt, v.config.prompts, tokens, query, c.training, batch);
  if (c.prompt_loss) *c.prompt_loss = p.loss;
  const ResidualStream s = through_blocks(v, p.tokens, c, false);
  return pool_tokens(forward(v.norm, joined(s), v.config.eps), 0, v.config.prompt_tokens());
}

void check_images(const Vit& v, const Tensor& images, const VitContext& c) {
  const VitConfig& f = v.config;
  check(bool(v.head.weight.value), Kind::usage,
        [] { return std::string("vit: the parameters have no values; call ParamArena::build and initialise first"); });
  check(images && images.rank() == 4 && images.dim(1) == f.channels, Kind::shape, [&] {
    return cat("vit: images must be [batch,", f.channels, ",", f.image_size, ",", f.image_size, "], got ",
               images ? cat(images) : "an empty tensor");
  });
  check(!c.training || f.drop_path == 0.0 || c.step, Kind::usage,
        [&] { return cat("vit: drop_path ", f.drop_path, " in training needs VitContext::step"); });
}

}  // namespace

std::vector<Param*> parameters(Vit& v) {
  std::vector<Param*> all;
  visit_params(v, [&](Param& p) { all.push_back(&p); });
  return all;
}

Vit make_vit(const VitConfig& c) {
  check_config(c);
  Vit v;
  v.config = c;
  v.embed = make_patch_embed(c);
  if (c.prompts.pool) v.prompt = make_prompts(c);
  for (int i = 0; i < c.depth; ++i) v.blocks.push_back(make_block(c, i));
  v.norm = make_norm(c.pools_mean() && !c.norm_first ? "fc_norm" : "norm", c.dim, Module::final_norm, -1);
  v.head = make_linear("head", c.classes, c.dim, Module::head, -1);
  link_units(v);
  if (v.prompt) {
    visit_params(
        v, [&](Param& p) { p.frozen = p.module != Module::head && &p != &v.prompt->prompts && &p != &v.prompt->keys; });
    v.head.weight.init = {Init::Rule::zeros};
  }
  return v;
}

Tensor forward_features(Vit& v, const Tensor& images, const VitContext& c) {
  check_images(v, images, c);
  const int last = v.config.depth;
  if (c.reads) c.reads(v.prompt ? last : -1);  // the query's pass reads everything first
  const Tensor tokens = forward(v.embed, v.config, images, c.mean, c.stddev, c.crop);
  const bool narrow = v.config.narrow_last && !v.config.pools_mean() && !c.probe;
  Tensor features;
  if (v.prompt) {
    features = prompted_features(v, tokens, c);
  } else {
    const ResidualStream s = through_blocks(v, tokens, c, narrow);
    if (c.reads) c.reads(last);
    features = pooled(v, s);
  }
  if (c.probe && c.probe->features) c.probe->features(features.detached());
  return features;
}

Tensor forward(Vit& v, const Tensor& images, const VitContext& c) {
  return forward(v.head, forward_features(v, images, c));
}

void watch(Tape& tape, Vit& v, bool accumulate) {
  visit_params(v, [&](Param& p) {
    if (!p.frozen) tape.watch(p.value, p.grad.view(), accumulate, p.block >= 0 ? p.block : v.config.depth);
  });
}

void unwatch(Vit& v) {
  visit_params(v, [](Param& p) { p.value.set_tape(nullptr, -1); });
}

}  // namespace eg
