// apps/weights/names.cpp - see names.h.
#include "apps/weights/names.h"

#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace eg {
namespace {

using Pair = std::pair<std::string_view, std::string_view>;  // Hugging Face, timm; without .weight and .bias
constexpr std::array<Pair, 5> kOutside{{{"vit.embeddings.cls_token", "cls_token"},
                                        {"vit.embeddings.position_embeddings", "pos_embed"},
                                        {"vit.embeddings.patch_embeddings.projection.", "patch_embed.proj."},
                                        {"vit.layernorm.", "norm."},
                                        {"classifier.", "head."}}};
/// How the parameters of a block are called, behind "vit." and without the block's number.
struct BlockNames {
  std::string_view prefix;
  std::array<Pair, 5> inside;
  std::array<std::string_view, 3> thirds;
};
/// In files, which every version reads and writes; and in the memory of version 5, which a saved state_dict has.
constexpr std::array<BlockNames, 2> kBlocks{
    {{"vit.encoder.layer.",
      {{{"layernorm_before.", "norm1."},
        {"attention.output.dense.", "attn.proj."},
        {"layernorm_after.", "norm2."},
        {"intermediate.dense.", "mlp.fc1."},
        {"output.dense.", "mlp.fc2."}}},
      {"attention.attention.query", "attention.attention.key", "attention.attention.value"}},
     {"vit.layers.",
      {{{"layernorm_before.", "norm1."},
        {"attention.o_proj.", "attn.proj."},
        {"layernorm_after.", "norm2."},
        {"mlp.fc1.", "mlp.fc1."},
        {"mlp.fc2.", "mlp.fc2."}}},
      {"attention.q_proj", "attention.k_proj", "attention.v_proj"}}}};
constexpr const BlockNames& kInFiles = kBlocks[0];

/// `name` with its first part replaced as the table says; nothing when none of the table begins it.
template <std::size_t N>
std::optional<std::string> renamed(std::string_view name, const std::array<Pair, N>& table, bool back) {
  for (const auto& [hf, timm] : table) {
    const std::string_view from = back ? timm : hf, to = back ? hf : timm;
    if (!name.starts_with(from)) continue;
    const std::string_view rest = name.substr(from.size());
    if (from.ends_with('.') ? rest == "weight" || rest == "bias" : rest.empty())
      return std::string(to) + std::string(rest);
  }
  return std::nullopt;
}

/// "prefix12.rest" as "12" and "rest".
std::optional<std::pair<std::string, std::string_view>> in_block(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  const std::size_t dot = name.find('.');
  if (dot == 0 || dot == std::string_view::npos || name.find_first_not_of("0123456789") != dot) return std::nullopt;
  return std::pair(std::string(name.substr(0, dot)), name.substr(dot + 1));
}

Tensor stacked(std::span<const Tensor> parts) {
  Shape shape = parts[0].shape();
  std::int64_t rows = 0;
  for (const Tensor& p : parts) rows += p.dim(0);
  Shape whole;
  for (int i = 0; i < shape.rank(); ++i) whole.push_back(i == 0 ? rows : shape[i]);
  Tensor out = Tensor::empty(whole, parts[0].dtype(), kCpu);
  auto* to = static_cast<std::byte*>(out.data());
  for (const Tensor& p : parts) std::memcpy(to, p.data(), p.bytes()), to += p.bytes();
  return out;
}

/// Two names of one file must not mean the same tensor: one of them would be lost.
void put(NamedTensors& out, const std::string& name, const Tensor& tensor) {
  check(out.emplace(name, tensor).second, Kind::format,
        [&] { return cat("two tensors of the file are both ", name, ", under different names"); });
}

bool alike(const Tensor& a, const Tensor& b) { return a.shape() == b.shape() && a.dtype() == b.dtype(); }

/// Replaces the three tensors of a block, where all are there, by one.
void join_thirds(NamedTensors& all, const std::string& hf_block, const BlockNames& names, const std::string& timm_block,
                 const char* what) {
  std::array<Tensor, 3> parts;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto at = all.find(hf_block + std::string(names.thirds[i]) + what);
    if (at == all.end() || at->second.rank() == 0) return;
    parts[i] = at->second;
  }
  if (!alike(parts[0], parts[1]) || !alike(parts[0], parts[2])) return;
  put(all, timm_block + "attn.qkv" + what, stacked(parts));
  for (const std::string_view third : names.thirds) all.erase(hf_block + std::string(third) + what);
}

/// Moves what belongs to a block of this layout; false when the name is none of it.
bool put_block_tensor(NamedTensors& out, const std::string& name, const Tensor& tensor, const BlockNames& names,
                      std::map<std::string, std::string>& blocks) {
  const auto block = in_block(name, names.prefix);
  if (!block) return false;
  const std::string timm = "blocks." + block->first + ".";
  blocks[std::string(names.prefix) + block->first + "."] = timm;
  const auto inner = renamed(block->second, names.inside, false);
  put(out, inner ? timm + *inner : name, tensor);
  return true;
}

}  // namespace

bool is_hugging_face(const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors)
    if (name.starts_with("vit.") || name.starts_with("encoder.layer.") || name.starts_with("embeddings.")) return true;
  return false;
}

NamedTensors to_timm(NamedTensors tensors) {
  NamedTensors out;
  std::array<std::map<std::string, std::string>, 2> blocks;  // of each layout: Hugging Face's prefix -> timm's
  for (auto& [given, tensor] : tensors) {
    // The bare ViTModel has no "vit." in front.
    bool bare = false;
    for (const char* part : {"encoder.layer.", "layers.", "embeddings.", "layernorm."})
      bare = bare || given.starts_with(part);
    const std::string name = (bare ? "vit." : "") + given;
    if (const auto plain = renamed(name, kOutside, false))
      put(out, *plain, tensor);
    else if (!put_block_tensor(out, name, tensor, kBlocks[0], blocks[0]) &&
             !put_block_tensor(out, name, tensor, kBlocks[1], blocks[1]))
      put(out, given, tensor);
  }
  for (std::size_t layout = 0; layout < 2; ++layout)
    for (const auto& [hf, timm] : blocks[layout])
      for (const char* what : {".weight", ".bias"}) join_thirds(out, hf, kBlocks[layout], timm, what);
  return out;
}

NamedTensors to_hugging_face(const NamedTensors& tensors) {
  NamedTensors out;
  for (const auto& [name, tensor] : tensors) {
    const auto block = in_block(name, "blocks.");
    if (block && (block->second == "attn.qkv.weight" || block->second == "attn.qkv.bias")) {
      const std::string what(block->second.substr(8));
      const std::int64_t rows = tensor.dim(0) / 3;
      for (std::size_t i = 0; i < 3; ++i)
        out[std::string(kInFiles.prefix) + block->first + "." + std::string(kInFiles.thirds[i]) + what] =
            tensor.slice(std::int64_t(i) * rows, rows);
      continue;
    }
    const std::string renamed_to = in_file(name, true);
    check(!renamed_to.empty(), Kind::internal, [&] { return cat("Hugging Face's ViT has no tensor like ", name); });
    out[renamed_to] = tensor;
  }
  return out;
}

std::string in_file(const std::string& name, bool hugging_face) {
  if (!hugging_face) return name;
  if (const auto plain = renamed(name, kOutside, true)) return *plain;
  const auto block = in_block(name, "blocks.");
  if (!block) return {};
  const std::string prefix = std::string(kInFiles.prefix) + block->first + ".";
  if (block->second.starts_with("attn.qkv."))
    return prefix + "attention.attention.{query,key,value}." + std::string(block->second.substr(9));
  const auto inner = renamed(block->second, kInFiles.inside, true);
  return inner ? prefix + *inner : std::string();
}

}  // namespace eg
