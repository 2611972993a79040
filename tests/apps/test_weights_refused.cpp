// tests/apps/test_weights_refused.cpp - weights that are damaged, incomplete or of another network: each is an error that
// says what is wrong, and nothing is skipped.
#include <cmath>
#include <cstring>
#include <random>

#include "apps/weights/infer.h"
#include "engine/file.h"
#include "tests/apps/weights_files.h"

using namespace eg;
using namespace eg::test;
namespace fs = std::filesystem;

namespace {

/// The message with which reading `tensors` under these options is refused.
std::string refused(const NamedTensors& tensors, const ImportOptions& o = {.heads = 2}, Kind kind = Kind::format) {
  const TemporaryFolder folder;
  write_safetensors(folder / "m.safetensors", listed(tensors));
  return error_text(kind, [&] { read_weights(folder / "m.safetensors", o, nullptr); });
}

}  // namespace

TEST_CASE("weights: missing, unknown and mis-shaped tensors are all listed, and nothing is skipped") {
  const NamedTensors good = read_golden("timm_registers").tensors;
  const Tensor some = Tensor::zeros({32}, DType::f32, kCpu);
  NamedTensors bad = good;
  bad.erase("blocks.1.norm2.weight"), bad.erase("head.bias");
  bad["blocks.0.mlp.fc2.bias"] = Tensor::zeros({31}, DType::f32, kCpu);
  bad["dist_token"] = bad["blocks.0.attn.rope"] = some;
  const std::string message = refused(bad);
  for (const char* part :
       {"missing: ", "blocks.1.norm2.weight", "head.bias", "blocks.0.mlp.fc2.bias [31], expected [32]",
        "unknown: ", "dist_token [32] (distillation tokens)", "blocks.0.attn.rope [32]", "--drop"})
    CHECK(contains(message, part));
  const auto with = [&](const std::string& name, const Tensor& t) {
    NamedTensors all = good;
    all[name] = t;
    return all;
  };
  const auto without = [&](const std::string& name) {
    NamedTensors all = good;
    all.erase(name);
    return all;
  };
  NamedTensors misspelt = without("cls_token");
  misspelt["cls_tokn"] = good.at("cls_token");
  CHECK(contains(refused(misspelt), "cls_tokn"));
  CHECK(contains(refused(without("patch_embed.proj.weight")), "no tensor patch_embed.proj.weight"));
  CHECK(contains(refused(without("pos_embed")), "no tensor pos_embed"));
  CHECK(contains(refused(with("pos_embed", Tensor::zeros({1, 18, 32}, DType::f32, kCpu))), "no square grid"));
  CHECK(
      contains(refused(with("patch_embed.proj.weight", Tensor::zeros({32, 3, 4, 2}, DType::f32, kCpu))), "not square"));
  CHECK(contains(refused(with("blocks.99999999999.norm1.weight", some)), "unknown: blocks.99999999999"));
  CHECK(contains(refused(with("blocks.9999.norm1.weight", some)), "10000 blocks"));
  CHECK(contains(refused(with("head.weight", Tensor::zeros({10, 32}, DType::i32, kCpu))), "head.weight (I32 at byte"));
  CHECK(
      contains(refused(with("norm.bias", Tensor::from(std::vector<double>(32, std::nan("")), {32}, DType::f32, kCpu))),
               "norm.bias (nan at position 0)"));
  CHECK(contains(refused(good, {.heads = 5}, Kind::usage), "--heads 5 does not divide the width 32"));
  CHECK(contains(refused(with("blocks.0.mlp.fc1.weight", Tensor::zeros({32 * 65, 32}, DType::f32, kCpu))),
                 "--mlp-ratio"));
  NamedTensors odd = with("pos_embed", Tensor::zeros({1, 20, 32}, DType::f32, kCpu));
  odd["reg_token"] = Tensor::zeros({1, 3, 31}, DType::f32, kCpu);
  CHECK(contains(refused(odd), "reg_token [1,3,31], expected [1,3,32]"));
  CHECK(contains(refused({{"x", some}}), "no tensor patch_embed.proj.weight"));
  // Of Hugging Face, messages use the names of the file; a name that means the same tensor twice is refused.
  NamedTensors hf = to_hugging_face(read_golden("hugging_face_vit").tensors);
  hf["vit.pooler.dense.bias"] = some;
  hf.erase("vit.encoder.layer.0.attention.attention.key.weight");
  const std::string hf_message = refused(hf);
  CHECK(contains(hf_message, "missing: vit.encoder.layer.0.attention.attention.{query,key,value}.weight"));
  CHECK(contains(hf_message, "vit.pooler.dense.bias [32] (Hugging Face's pooler)"));
  hf["embeddings.cls_token"] = hf.at("vit.embeddings.cls_token");
  CHECK(contains(refused(hf), "two tensors of the file are both cls_token"));
}

TEST_CASE("weights: whatever a damaged file holds, it is an error that names the file, or weights") {
  const TemporaryFolder folder;
  const std::string good = read_file(golden("timm_qk_norm_mean"));
  const fs::path path = folder / "m.safetensors";
  std::minstd_rand random(3);
  int refusals = 0;
  const auto attempt = [&](const std::string& bytes) {
    write_file(path, bytes);
    try {
      read_weights(path, options_for("timm_qk_norm_mean"), nullptr);
    } catch (const Error& e) {
      ++refusals;
      CHECK(e.kind != Kind::internal);
      CHECK(std::strlen(e.what()) < 4000);
    }
  };
  for (std::size_t size = 0; size < good.size(); size += 1 + good.size() / 60) attempt(good.substr(0, size));
  CHECK(refusals > 55);
  for (int i = 0; i < 300; ++i) {  // the header is some six thousand bytes long
    std::string bad = good;
    for (int k = 0; k < 3; ++k) bad[8 + random() % 6000] = char(random() % 256);
    attempt(bad);
  }
  CHECK(refusals > 200);
}

namespace {

/// One tensor lost, renamed, reshaped, put in the place of another, or taken from another model.
void spoil(NamedTensors& t, const std::vector<NamedTensors>& models, std::minstd_rand& random) {
  const auto any = [&](NamedTensors& of) { return std::next(of.begin(), std::ptrdiff_t(random() % of.size())); };
  const auto victim = any(t);
  switch (random() % 5) {
    case 0: t.erase(victim); break;
    case 1: {
      auto node = t.extract(victim);
      node.key()[random() % node.key().size()] = "abz.0123456789"[random() % 14];
      t.insert(std::move(node));
      break;
    }
    case 2: {
      Shape shape;
      for (std::int64_t axes = random() % 6; axes > 0; --axes) shape.push_back(random() % (random() % 3 ? 70 : 4));
      if (shape.size() < 300000) victim->second = Tensor::zeros(shape, DType::f32, kCpu);
      break;
    }
    case 3: std::swap(victim->second, any(t)->second); break;
    default: {
      NamedTensors other = models[random() % models.size()];
      t.insert(*any(other));
    }
  }
}

}  // namespace

TEST_CASE("weights: any set of names and shapes is refused with a reason, or is a model that loads") {
  std::vector<NamedTensors> models;
  for (const std::string name : kGolden) {
    const ModelWeights w = read_golden(name);
    models.push_back(name == "hugging_face_vit" ? to_hugging_face(w.tensors) : w.tensors);
  }
  std::minstd_rand random(11);
  int loaded = 0, refusals = 0;
  for (int i = 0; i < 4000; ++i) {
    NamedTensors t = models[random() % models.size()];
    for (int n = int(random() % 4); n > 0 && !t.empty(); --n) spoil(t, models, random);
    const ImportOptions o{.heads = int(random() % 3), .pool = random() % 4 ? "" : "mean"};
    try {
      const bool hugging_face = is_hugging_face(t);
      ModelWeights w{"input", {}, hugging_face ? to_timm(t) : t};
      w.config = infer_config(w.tensors, o, hugging_face, w.source, nullptr);
      VitConfig whole = w.config;
      whole.classes = std::max(1, whole.classes);
      Vit model = make_vit(whole);
      const std::vector<Param*> params = parameters(model);
      ParamArena arena;
      arena.build(params, kCpu, DType::f32);
      load_weights(w, params);
      ++loaded;
    } catch (const Error& e) {
      ++refusals;
      CAPTURE(std::string(e.what()));
      CHECK((e.kind == Kind::format || e.kind == Kind::usage));
    }
  }
  CHECK(loaded > 300);
  CHECK(refusals > 1000);
}
