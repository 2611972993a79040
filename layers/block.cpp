// layers/block.cpp - the two branches of a block.
#include "layers/block.h"

#include <tuple>

namespace eg {
namespace {

/// Layer scale and stochastic depth of one branch; the branch itself when neither is on.
Tensor scaled(const Block& b, const Tensor& branch, const std::optional<Param>& scale, const char* which,
              const BlockContext& c) {
  Tensor mask;
  if (c.drop_step && b.drop_path > 0.0)
    mask = drop_mask(branch.device(), branch.dim(0), b.drop_path, b.name + which, c.drop_step);
  return branch_scale(branch, scale ? scale->value : Tensor{}, mask);
}

}  // namespace

ResidualStream forward(const Block& b, const ResidualStream& in, const BlockContext& c) {
  Tensor x = in.x, y;
  if (in.branch)
    std::tie(x, y) = forward(b.norm1, in.x, in.branch, c.eps);
  else
    y = forward(b.norm1, x, c.eps);
  Tensor mixed = mix_tokens(b.attn, y, c.eps, c.see_qkv);
  if (c.through_mixed) mixed = c.through_mixed(mixed);
  if (c.first_token_only) x = pool_tokens(x, 0, 1), mixed = pool_tokens(mixed, 0, 1);
  const Tensor attended = scaled(b, forward(b.attn.proj, mixed), b.ls1, ".drop_path1", c);
  mixed = {};
  std::tie(x, y) = forward(b.norm2, x, attended, c.eps);
  const Tensor perceived = c.see_hidden ? forward(b.mlp, y, c.see_hidden) : forward(b.mlp, y);
  return {x, scaled(b, perceived, b.ls2, ".drop_path2", c)};
}

Tensor joined(const ResidualStream& s) { return s.branch ? add(s.x, s.branch) : s.x; }

Block make_block(const VitConfig& c, int index) {
  const std::string name = cat("blocks.", index);
  const auto layer_scale = [&](const char* which) {
    return Param{.name = name + which,
                 .role = Role::norm,
                 .module = Module::layer_scale,
                 .shape = {c.dim},
                 .init = {Init::Rule::constant, c.layer_scale},
                 .fan_in = c.dim,
                 .block = index};
  };
  Block b;
  b.name = name;
  b.norm1 = make_norm(name + ".norm1", c.dim, Module::norm1, index);
  b.attn = make_attention(name + ".attn", c.dim, c.heads, c.qk_norm, index);
  b.norm2 = make_norm(name + ".norm2", c.dim, Module::norm2, index);
  b.mlp = make_mlp(name + ".mlp", c, index);
  if (c.layer_scale > 0.0) b.ls1 = layer_scale(".ls1.gamma"), b.ls2 = layer_scale(".ls2.gamma");
  // Linear from 0 at the first block to the full rate at the last; a single block drops nothing, as in timm.
  b.drop_path = c.depth > 1 ? c.drop_path * index / (c.depth - 1) : 0.0;
  return b;
}

}  // namespace eg
