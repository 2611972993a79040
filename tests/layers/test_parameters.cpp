// tests/layers/test_parameters.cpp - names, shapes, counts and roles of a model's parameters, and what is refused.
#include <doctest/doctest.h>

#include <set>

#include "model.h"

using namespace eg;
using namespace eg::test;

namespace {

std::vector<std::string> names_of(const VitConfig& c) {
  Vit v = make_vit(c);
  std::vector<std::string> names;
  for (const Param* p : parameters(v)) names.push_back(cat(p->name, " ", p->shape));
  return names;
}

VitConfig tiny() {
  VitConfig c;
  c.image_size = 8, c.patch = 4, c.dim = 12, c.depth = 1, c.heads = 2, c.classes = 5;
  return c;
}

/// Parameters without the head, as tables of model sizes count them.
std::int64_t count_without_head(const VitConfig& c) { return c.parameter_count() - c.classes * (c.dim + 1); }

}  // namespace

TEST_CASE("vit: parameters have timm's names, order and shapes") {
  const std::vector<std::string> expected{"cls_token [1,1,12]",
                                          "pos_embed [1,5,12]",
                                          "patch_embed.proj.weight [12,3,4,4]",
                                          "patch_embed.proj.bias [12]",
                                          "blocks.0.norm1.weight [12]",
                                          "blocks.0.norm1.bias [12]",
                                          "blocks.0.attn.qkv.weight [36,12]",
                                          "blocks.0.attn.qkv.bias [36]",
                                          "blocks.0.attn.proj.weight [12,12]",
                                          "blocks.0.attn.proj.bias [12]",
                                          "blocks.0.norm2.weight [12]",
                                          "blocks.0.norm2.bias [12]",
                                          "blocks.0.mlp.fc1.weight [48,12]",
                                          "blocks.0.mlp.fc1.bias [48]",
                                          "blocks.0.mlp.fc2.weight [12,48]",
                                          "blocks.0.mlp.fc2.bias [12]",
                                          "norm.weight [12]",
                                          "norm.bias [12]",
                                          "head.weight [5,12]",
                                          "head.bias [5]"};
  CHECK(names_of(tiny()) == expected);
}

TEST_CASE("vit: options add and rename parameters as timm does") {
  VitConfig c = tiny();
  c.qk_norm = true, c.layer_scale = 1e-5, c.registers = 3;
  const std::vector<std::string> all = names_of(c);
  const std::set<std::string> names(all.begin(), all.end());
  for (const char* name : {"reg_token [1,3,12]", "pos_embed [1,4,12]", "blocks.0.attn.q_norm.weight [6]",
                           "blocks.0.attn.q_norm.bias [6]", "blocks.0.attn.k_norm.weight [6]",
                           "blocks.0.attn.k_norm.bias [6]", "blocks.0.ls1.gamma [12]", "blocks.0.ls2.gamma [12]"}) {
    CAPTURE(std::string(name));
    CHECK(names.contains(name));
  }
  CHECK(all.size() == 20 + 1 + 4 + 2);
  c = tiny(), c.class_token = false, c.pos = PosEmbed::sincos;
  const std::vector<std::string> pooled = names_of(c);
  CHECK(pooled.front() == "patch_embed.proj.weight [12,3,4,4]");
  CHECK(pooled[pooled.size() - 4] == "fc_norm.weight [12]");
  CHECK(pooled.size() == 18);
}

TEST_CASE("vit: the presets have the published numbers of parameters") {
  // At 224/16, without the head: what timm counts for vit_{tiny,small,base,large}_patch16_224 with num_classes=0.
  const std::pair<const char*, std::int64_t> published[] = {
      {"vit-ti", 5524416}, {"vit-s", 21665664}, {"vit-b", 85798656}, {"vit-l", 303301632}};
  REQUIRE(vit_presets().size() == std::size(published));
  for (std::size_t i = 0; i < std::size(published); ++i) {
    const auto& [name, count] = published[i];
    CHECK(vit_presets()[i] == name);
    VitConfig c = vit_config(name, 224, 16);
    CHECK(count_without_head(c) == count);
    c.classes = 1000;
    CHECK(c.parameter_count() == count + 1000 * (c.dim + 1));
    Vit v = make_vit(c);
    std::set<std::string> distinct;
    for (const Param* p : parameters(v)) distinct.insert(p->name);
    CHECK(distinct.size() == std::size_t(8 + 12 * c.depth));
  }
  CHECK(count_without_head(vit_config("vit-s", 32, 4, 384, 8, 6)) == 14240640);  // the SWR paper's model
  CHECK(count_without_head(vit_config("vit-ti", 32, 4)) == 5360832);             // FIRE's model
}

TEST_CASE("vit: one forward pass costs the published number of multiply-adds") {
  // ViT-B/16 at 224 px 17.56 G, 8 x 384 at 32/4 0.947 G, vit-ti at 32/4 0.365 G: all as printed, so to half a digit.
  CHECK(std::abs(vit_config("vit-b", 224, 16).forward_flops() / 2e9 - 17.56) < 0.005);
  CHECK(std::abs(vit_config("vit-s", 32, 4, 384, 8, 6).forward_flops() / 2e9 - 0.947) < 0.0005);
  CHECK(std::abs(vit_config("vit-ti", 32, 4).forward_flops() / 2e9 - 0.365) < 0.0005);
}

TEST_CASE("vit: matrices and the head's matrix decay; vectors, tokens and positions do not") {
  VitConfig c = small_config();
  c.qk_norm = true, c.layer_scale = 0.1, c.registers = 2;
  Vit v = make_vit(c);
  for (const Param* p : parameters(v)) {
    CAPTURE(p->name);
    const bool matrix = p->shape.rank() == 2 || p->name == "patch_embed.proj.weight";
    CHECK(p->decays == matrix);
    const bool in_block = p->name.starts_with("blocks.");
    CHECK(p->block == (in_block ? std::stoi(p->name.substr(7)) : -1));
    if (p->name.starts_with("head.")) CHECK(p->role == Role::head);
    if (p->name.find("norm") != std::string::npos) CHECK(p->role == Role::norm);
    if (p->shape.rank() == 3) CHECK(p->role == Role::embedding);
    CHECK(p->fan_in > 0);
  }
}

TEST_CASE("vit: a hidden unit's row, bias and column are linked") {
  Vit v = make_vit(small_config());
  const std::vector<Param*> all = parameters(v);
  int linked = 0;
  for (const Param* p : all) {
    if (p->module != Module::fc1 && p->module != Module::fc2) continue;
    if (p->link.fc1_weight < 0) continue;
    ++linked;
    const std::string block = cat("blocks.", p->block, ".mlp.");
    CHECK(all[std::size_t(p->link.fc1_weight)]->name == block + "fc1.weight");
    CHECK(all[std::size_t(p->link.fc1_bias)]->name == block + "fc1.bias");
    CHECK(all[std::size_t(p->link.fc2_weight)]->name == block + "fc2.weight");
  }
  CHECK(linked == 3 * 3);
}

TEST_CASE("arena: parameters are disjoint, aligned and laid out by backward completion, with zeros between") {
  Model m(small_config(), kCpu);
  std::int64_t end = 0;
  for (std::size_t i = m.params.size(); i-- > 0;) {  // the last layer's parameters come first
    const Param& p = *m.params[i];
    CAPTURE(p.name);
    CHECK(p.offset % 16 == 0);
    CHECK(p.offset >= end);
    CHECK(p.offset < end + 16);
    end = p.offset + p.size();
    CHECK(p.master.data() == static_cast<float*>(m.arena.master.data()) + p.offset);
    CHECK(p.grad.data() == static_cast<float*>(m.arena.grad.data()) + p.offset);
    CHECK(p.value.data() == p.master.data());
  }
  CHECK(m.arena.size >= end);
  const std::vector<double> values = m.arena.master.to_host();
  std::vector<bool> used(values.size(), false);
  for (const Param* p : m.params)
    for (std::int64_t i = 0; i < p->size(); ++i) used[std::size_t(p->offset + i)] = true;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!used[i]) CHECK(values[i] == 0.0);
}

TEST_CASE("arena: in bf16 the model reads a rounded copy of the fp32 masters") {
  Model m(small_config(), kCpu, 1, DType::bf16);
  for (const Param* p : m.params) {
    CHECK(p->value.dtype() == DType::bf16);
    CHECK(p->master.dtype() == DType::f32);
    std::vector<double> rounded = p->master.to_host();
    for (double& x : rounded) x = double(bf16(x));
    CHECK(p->value.to_host() == rounded);
  }
}

namespace {

void refuses(const std::string& words, const std::function<void(VitConfig&)>& spoil) {
  VitConfig c = small_config();
  spoil(c);
  std::string text;
  try {
    make_vit(c);
  } catch (const Error& e) {
    text = e.what();
    CHECK(e.kind == Kind::usage);
  }
  CAPTURE(text);
  CAPTURE(words);
  CHECK(text.find(words) != std::string::npos);
}

}  // namespace

TEST_CASE("config: what cannot be built is refused with the flag and its value") {
  refuses("--image-size 9 is not a multiple of --patch 4", [](VitConfig& c) { c.image_size = 9; });
  refuses("--dim 12 is not a multiple of --heads 5", [](VitConfig& c) { c.heads = 5; });
  refuses("--pos sincos needs a --dim that is a multiple of 4, got 6",
          [](VitConfig& c) { c.dim = 6, c.pos = PosEmbed::sincos; });
  refuses("--drop-path is a probability below 1, got 1", [](VitConfig& c) { c.drop_path = 1.0; });
  refuses("--drop-path", [](VitConfig& c) { c.drop_path = -0.1; });
  refuses("--drop-path", [](VitConfig& c) { c.drop_path = NAN; });
  refuses("--mlp-ratio must lie in (0, 64], got 0", [](VitConfig& c) { c.mlp_ratio = 0.0; });
  refuses("--mlp-ratio 0.01 leaves no hidden unit at --dim 12", [](VitConfig& c) { c.mlp_ratio = 0.01; });
  refuses("--layer-scale", [](VitConfig& c) { c.layer_scale = -1.0; });
  refuses("eps", [](VitConfig& c) { c.eps = 0.0; });
  refuses("--depth must lie between 1 and 4096, got 0", [](VitConfig& c) { c.depth = 0; });
  refuses("--heads", [](VitConfig& c) { c.heads = 0; });
  refuses("--patch", [](VitConfig& c) { c.patch = 0; });
  refuses("--channels", [](VitConfig& c) { c.channels = 0; });
  refuses("--registers", [](VitConfig& c) { c.registers = -1; });
  refuses("classes", [](VitConfig& c) { c.classes = 0; });
  refuses("i32", [](VitConfig& c) { c.precision = DType::i32; });
  std::string text;
  try {
    vit_config("vit-xxl", 32, 4);
  } catch (const Error& e) { text = e.what(); }
  CHECK(text.find("'vit-xxl'") != std::string::npos);
  CHECK(text.find("vit-ti, vit-s, vit-b, vit-l") != std::string::npos);
}
