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

BlockContext block_context(const Vit& v, int index, const VitContext& c) {
  BlockContext b;
  b.eps = v.config.eps;
  if (c.training) b.drop_step = c.step;
  b.first_token_only = v.config.narrows(index) && !c.probe;
  if (c.probe && c.probe->hidden)
    b.see_hidden = [index, probe = c.probe](const Tensor& z) { probe->hidden(index, z.detached()); };
  if (c.probe && c.probe->qkv)
    b.see_qkv = [index, probe = c.probe](const Tensor& qkv) { probe->qkv(index, qkv.detached()); };
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

/// What the head reads of the last block's stream.
Tensor pooled(const Vit& v, const ResidualStream& s) {
  const VitConfig& f = v.config;
  if (!f.class_token) return forward(v.norm, pool_tokens(joined(s), f.prefix(), f.patches()), f.eps);
  // The norm works on each token alone, so it may come after the choice of the token.
  const auto token = [](const Tensor& t) { return t && t.rank() == 3 ? pool_tokens(t, 0, 1) : t; };
  const Tensor x = token(s.x), branch = token(s.branch);
  return branch ? forward(v.norm, x, branch, f.eps).second : forward(v.norm, x, f.eps);
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
  for (int i = 0; i < c.depth; ++i) v.blocks.push_back(make_block(c, i));
  v.norm = make_norm(c.class_token ? "norm" : "fc_norm", c.dim, Module::final_norm, -1);
  v.head = make_linear("head", c.classes, c.dim, Module::head, -1);
  link_units(v);
  return v;
}

Tensor forward_features(Vit& v, const Tensor& images, const VitContext& c) {
  check_images(v, images, c);
  ResidualStream s{forward(v.embed, v.config, images, c.mean, c.stddev, c.crop), {}};
  for (int i = 0; i < v.config.depth; ++i) {
    const BlockContext context = block_context(v, i, c);
    s = v.config.recompute ? recomputed(v, i, s, context) : forward(v.blocks[std::size_t(i)], s, context);
    if (c.probe && c.probe->tokens)
      c.probe->tokens(i, joined({s.x.detached(), s.branch ? s.branch.detached() : Tensor{}}));
  }
  const Tensor features = pooled(v, s);
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
