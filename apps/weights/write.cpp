// apps/weights/write.cpp - weights for timm and for Hugging Face.
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/weights/model_weights.h"
#include "apps/weights/names.h"
#include "engine/file.h"
#include "engine/safetensors.h"

namespace eg {
namespace {

/// The metadata: what both libraries ask for ("format"), and what shapes cannot tell.
std::map<std::string, std::string> metadata_of(const VitConfig& c) {
  const nlohmann::json ours = {
      {"heads", c.heads}, {"eps", c.eps}, {"gelu", c.gelu == GeluKind::tanh ? "tanh" : "erf"}, {"pool", pool_name(c)}};
  return {{"format", "pt"}, {"evergrad", ours.dump()}};
}

/// Fixed positions as the learned ones that equal them, since neither library has the fixed ones.
NamedTensors with_positions(const ModelWeights& w) {
  NamedTensors all = w.tensors;
  const VitConfig& c = w.config;
  if (c.pos != PosEmbed::sincos) return all;
  std::vector<double> values(c.registers == 0 && c.class_token ? std::size_t(c.dim) : 0, 0.0);
  const std::vector<double> table = sincos_positions(c.image_size / c.patch, c.dim);
  values.insert(values.end(), table.begin(), table.end());
  all["pos_embed"] = Tensor::from(values, {1, std::int64_t(values.size()) / c.dim, c.dim}, DType::f32, kCpu);
  return all;
}

void write(const std::filesystem::path& path, const NamedTensors& tensors, const VitConfig& c) {
  std::vector<NamedTensor> list;
  for (const auto& [name, tensor] : tensors) list.push_back({name, tensor});
  std::error_code error;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  check(!error, Kind::io, [&] { return io_message("create the folder", path.parent_path(), error.value()); });
  write_safetensors(path, list, metadata_of(c));
}

/// As Python writes it: True, not true.
const char* python(bool b) { return b ? "True" : "False"; }

}  // namespace

void write_weights(const std::filesystem::path& path, const ModelWeights& w) {
  write(path, with_positions(w), w.config);
}

void write_hugging_face(const std::filesystem::path& path, const ModelWeights& w) {
  const VitConfig& c = w.config;
  const std::pair<bool, const char*> foreign[] = {{c.pools_mean(), "mean pooling"},
                                                  {c.registers > 0, "register tokens"},
                                                  {c.qk_norm, "norms of queries and keys"},
                                                  {c.layer_scale > 0.0, "layer scale"}};
  for (const auto& [present, what] : foreign)
    check(!present, Kind::usage, [&] {
      return cat(w.source, " has ", what, ", which Hugging Face's ViTForImageClassification has not; use --names timm");
    });
  write(path, to_hugging_face(with_positions(w)), c);
}

std::string timm_expression(const VitConfig& c) {
  std::string text =
      cat("timm.models.vision_transformer.VisionTransformer(img_size=", c.image_size, ", patch_size=", c.patch,
          ", in_chans=", c.channels, ", num_classes=", c.classes, ", embed_dim=", c.dim, ", depth=", c.depth,
          ", num_heads=", c.heads, ", mlp_ratio=", c.mlp_ratio);
  if (c.pools_mean()) text += cat(", global_pool='avg', fc_norm=", python(!c.norm_first));
  if (!c.class_token) text += ", class_token=False";
  if (c.qk_norm) text += ", qk_norm=True";
  if (c.layer_scale > 0.0) text += cat(", init_values=", c.layer_scale);
  if (c.registers > 0) text += cat(", reg_tokens=", c.registers, ", no_embed_class=True");
  if (c.gelu == GeluKind::tanh) text += ", act_layer='gelu_tanh'";
  if (c.eps != 1e-6) text += cat(", norm_layer=functools.partial(torch.nn.LayerNorm, eps=", c.eps, ")");
  return text + ")";
}

std::string hugging_face_expression(const VitConfig& c) {
  return cat("transformers.ViTForImageClassification(transformers.ViTConfig(image_size=", c.image_size,
             ", patch_size=", c.patch, ", num_channels=", c.channels, ", num_labels=", c.classes,
             ", hidden_size=", c.dim, ", num_hidden_layers=", c.depth, ", num_attention_heads=", c.heads,
             ", intermediate_size=", c.hidden(), ", hidden_act='",
             c.gelu == GeluKind::tanh ? "gelu_pytorch_tanh" : "gelu", "', layer_norm_eps=", c.eps, "))");
}

}  // namespace eg
