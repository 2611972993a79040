// apps/weights/infer.cpp - see infer.h.
#include "apps/weights/infer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace eg {
namespace {

constexpr std::pair<const char*, const char*> kUnsupported[] = {{"dist_token", "distillation tokens"},
                                                                {"head_dist", "the distillation head"},
                                                                {"norm_pre", "a norm before the blocks"},
                                                                {"attn_pool", "attention pooling"},
                                                                {"pooler", "Hugging Face's pooler"},
                                                                {"mask_token", "masked pre-training"},
                                                                {"mlp.norm", "a norm in the MLP"},
                                                                {"attn.norm", "a norm behind attention"},
                                                                {"rel_pos", "relative positions"},
                                                                {"decoder", "a decoder"},
                                                                {"_g.", "gated MLPs"},
                                                                {"w12", "gated MLPs"}};

constexpr std::array kKnown{"patch_embed.", "pos_embed", "cls_token", "reg_token",
                            "blocks.",      "norm.",     "fc_norm.",  "head."};

std::string unsupported(const std::string& name) {
  for (const auto& [part, what] : kUnsupported)
    if (name.find(part) != std::string::npos) return cat(" (", what, ")");
  return {};
}

class Inference {
 public:
  Inference(NamedTensors& tensors, const ImportOptions& options, bool hugging_face, const std::string& source,
            std::vector<std::string>* notes)
      : all_(tensors), o_(options), hf_(hugging_face), source_(source), notes_(notes) {}

  VitConfig run() {
    sizes();
    pooling();
    attention_heads();
    positions();
    compare();
    return c_;
  }

 private:
  bool has(const std::string& name) const { return all_.contains(name); }
  void note(const std::string& text) const {
    if (notes_) notes_->push_back(text);
  }
  [[noreturn]] void refuse(const std::string& why) const { fail(Kind::format, cat(source_, ": ", why)); }

  /// Names that no tensor of a Vision Transformer has, for messages about one that is missing: it may be among them.
  std::string strangers() const {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : all_) {
      const bool known = std::any_of(kKnown.begin(), kKnown.end(), [&](const char* k) { return name.starts_with(k); });
      if (!known) names.push_back(in_file(name, hf_));
    }
    return names.empty() ? "" : cat("; tensors that evergrad does not know: ", some_of(names));
  }

  /// The tensor that sizes are read off, with the rank it must have and no empty axis.
  const Tensor& needed(const std::string& name, int rank) const {
    const auto at = all_.find(name);
    if (at == all_.end()) {
      std::vector<std::string> names;
      for (const auto& [other, tensor] : all_) names.push_back(other);
      refuse(cat("there is no tensor ", in_file(name, hf_),
                 ": this is no Vision Transformer of timm or Hugging Face; it "
                 "holds ",
                 names.empty() ? "nothing" : some_of(names)));
    }
    if (at->second.rank() != rank || at->second.size() == 0)
      refuse(cat("tensor ", in_file(name, hf_), " has shape ", at->second.shape(), ", expected ", rank, " axes"));
    return at->second;
  }

  void sizes() {
    const Tensor& kernel = needed("patch_embed.proj.weight", 4);
    if (kernel.dim(2) != kernel.dim(3))
      refuse(cat("tensor ", in_file("patch_embed.proj.weight", hf_), " has shape ", kernel.shape(),
                 "; patches that are not square are not supported"));
    const auto small = [&](std::int64_t extent) {
      if (extent > 65536) refuse(cat("the patch projection has shape ", kernel.shape(), "; no axis may exceed 65536"));
      return int(extent);
    };
    c_.dim = small(kernel.dim(0)), c_.channels = small(kernel.dim(1)), c_.patch = small(kernel.dim(2));
    c_.depth = 0;
    for (const auto& [name, tensor] : all_) c_.depth = std::max(c_.depth, block_of(name) + 1);
    if (c_.depth == 0 || c_.depth > 1024) refuse(cat("it has ", c_.depth, " blocks; 1 to 1024 are supported"));
    const std::int64_t hidden = needed("blocks.0.mlp.fc1.weight", 2).dim(0);
    c_.mlp_ratio = double(hidden) / c_.dim;
    if (c_.hidden() < hidden) c_.mlp_ratio = std::nextafter(c_.mlp_ratio, 1e9);  // the quotient was rounded down
    c_.qk_norm = has("blocks.0.attn.q_norm.weight");
    c_.layer_scale = has("blocks.0.ls1.gamma") ? 1e-5 : 0.0;
    c_.registers = has("reg_token") ? small(needed("reg_token", 3).dim(1)) : 0;
    c_.class_token = has("cls_token");
    c_.classes = has("head.weight") ? int(std::min<std::int64_t>(needed("head.weight", 2).dim(0), 100000000)) : 0;
    c_.gelu = o_.gelu == "tanh" ? GeluKind::tanh : GeluKind::erf;
    c_.eps = o_.eps > 0.0 ? o_.eps : hf_ ? 1e-12 : 1e-6;
  }

  /// The number of the block that a name belongs to, or -1.
  static int block_of(const std::string& name) {
    if (!name.starts_with("blocks.")) return -1;
    int block = -1;
    const auto [end, error] = std::from_chars(name.data() + 7, name.data() + name.size(), block);
    return error == std::errc{} && end != name.data() + name.size() && *end == '.' && block >= 0 && block < 65536
               ? block
               : -1;
  }

  void pooling() {
    const bool fc = has("fc_norm.weight") || has("fc_norm.bias");
    const bool mean = o_.pool.empty() ? !c_.class_token || fc : o_.pool != "token";
    check(mean || c_.class_token, Kind::usage,
          [&] { return cat("--pool token: ", source_, " has no class token; use --pool mean", strangers()); });
    check(o_.pool != "mean-with-token" || c_.class_token, Kind::usage, [&] {
      return cat("--pool mean-with-token: ", source_, " has no class token; use --pool mean", strangers());
    });
    c_.mean_pool = mean && c_.class_token;
    c_.norm_first = mean && !fc;
    if (o_.pool.empty() && c_.class_token)
      note(cat("the head reads ", mean ? "the mean of the patch tokens, since there is an fc_norm" : "the class token",
               " (names and shapes do not tell; --pool changes it)"));
    if (mean || !fc || has("norm.weight")) return;
    // Norming the token that was chosen is choosing from normed tokens.
    for (const char* what : {"weight", "bias"})
      if (const auto at = all_.extract(std::string("fc_norm.") + what)) all_[std::string("norm.") + what] = at.mapped();
    note("fc_norm, which norms the class token alone, is called norm here");
  }

  void attention_heads() {
    if (c_.qk_norm) {
      const std::int64_t width = needed("blocks.0.attn.q_norm.weight", 1).size();
      c_.heads = int(c_.dim / width);
      if (c_.heads * width != c_.dim)
        refuse(cat("blocks.0.attn.q_norm.weight has ", width, " entries, which do not divide the width ", c_.dim));
      check(o_.heads == 0 || o_.heads == c_.heads, Kind::usage, [&] {
        return cat("--heads ", o_.heads, ": ", source_, " has ", c_.heads, " heads, as its q_norm says; leave it out");
      });
      return;
    }
    c_.heads = o_.heads > 0 ? o_.heads : c_.dim / 64;
    check(c_.heads > 0 && c_.dim % c_.heads == 0, Kind::usage, [&] {
      return o_.heads > 0 ? cat("--heads ", o_.heads, " does not divide the width ", c_.dim, " of ", source_)
                          : cat(source_, " does not say how many heads its width of ", c_.dim, " has; give --heads N");
    });
    if (o_.heads == 0) note(cat("heads: ", c_.heads, ", the width / 64 (shapes do not tell; --heads changes it)"));
  }

  static std::int64_t root_of(std::int64_t square) {
    const auto root = std::int64_t(std::llround(std::sqrt(double(square))));
    return square > 0 && root * root == square ? root : 0;
  }

  void positions() {
    const Tensor& pos = needed("pos_embed", 3);
    const std::int64_t rows = pos.dim(1), prefix = c_.prefix();
    // Registers come with positions of the patches alone as a rule; a plain class token has one of its own.
    const std::int64_t patches_only = root_of(rows), with_prefix = root_of(rows - prefix);
    const bool only = patches_only > 0 && (with_prefix == 0 || prefix == 0 || c_.registers > 0);
    const std::int64_t side = only ? patches_only : with_prefix;
    if (side == 0 || side * c_.patch > 16384)
      refuse(cat("tensor ", in_file("pos_embed", hf_), " has shape ", pos.shape(), "; ", rows,
                 " positions are no square ", "grid, with or without ", prefix, " for class token and registers",
                 strangers()));
    c_.image_size = int(side) * c_.patch;
    if (pos.dim(2) != c_.dim || pos.dim(0) != 1) return;  // compare() says what is wrong
    if (only && prefix > 0 && c_.registers == 0) {
      std::vector<double> values(std::size_t(c_.dim), 0.0);
      const std::vector<double> patches = pos.to_host();
      values.insert(values.end(), patches.begin(), patches.end());
      all_["pos_embed"] = Tensor::from(values, {1, rows + 1, c_.dim}, pos.dtype(), kCpu);
      note("the class token has no position in the file; it gets one of zero");
    }
    if (!only && c_.registers > 0) fold_prefix(pos);
  }

  /// Positions of class token and registers are added to these tokens, and then only the patches have any.
  void fold_prefix(const Tensor& pos) {
    const std::vector<double> values = pos.to_host();
    const DType type = pos.dtype();
    std::size_t at = 0;
    for (const char* name : {"cls_token", "reg_token"}) {
      const auto token = all_.find(name);
      if (token == all_.end()) continue;
      if (token->second.rank() != 3 || token->second.dim(2) != c_.dim) return;  // compare() says what is wrong
      std::vector<double> sum = token->second.to_host();
      if (at + sum.size() > values.size()) return;
      for (double& x : sum) x += values[at++];
      token->second = Tensor::from(sum, token->second.shape(), token->second.dtype(), kCpu);
    }
    const std::vector<double> patches(values.begin() + std::ptrdiff_t(at), values.end());
    all_["pos_embed"] = Tensor::from(patches, {1, std::int64_t(patches.size()) / c_.dim, c_.dim}, type, kCpu);
    note("the positions of class token and registers were added to these tokens (timm: no_embed_class=True)");
  }

  void compare() const {
    VitConfig whole = c_;
    whole.classes = std::max(1, c_.classes);
    try {
      check_config(whole);
    } catch (const Error& e) { refuse(e.what()); }
    Vit model = make_vit(whole);
    std::map<std::string, Shape> wanted;
    for (const Param* p : parameters(model))
      if (c_.classes > 0 || p->module != eg::Module::head) wanted[p->name] = p->shape;
    std::vector<std::string> missing, unknown, misshaped;
    for (const auto& [name, shape] : wanted) {
      const auto at = all_.find(name);
      if (at == all_.end())
        missing.push_back(in_file(name, hf_));
      else if (at->second.shape() != shape)
        misshaped.push_back(cat(in_file(name, hf_), ' ', at->second.shape(), ", expected ", shape));
    }
    for (const auto& [name, tensor] : all_)
      if (!wanted.contains(name)) unknown.push_back(cat(name, ' ', tensor.shape(), unsupported(name)));
    if (missing.empty() && unknown.empty() && misshaped.empty()) return;
    std::string why = cat("as a Vision Transformer ", c_.image_size, "/", c_.patch, " of width ", c_.dim, " with ",
                          c_.depth, " blocks and ", c_.heads, " heads it does not fit");
    if (!missing.empty()) why += "; missing: " + some_of(missing);
    if (!misshaped.empty()) why += "; wrong shape: " + some_of(misshaped);
    if (!unknown.empty()) why += "; unknown: " + some_of(unknown) + "; --drop PATTERN leaves tensors out";
    refuse(why);
  }

  NamedTensors& all_;
  const ImportOptions& o_;
  const bool hf_;
  const std::string& source_;
  std::vector<std::string>* notes_;
  VitConfig c_;
};

}  // namespace

std::string some_of(const std::vector<std::string>& items) {
  constexpr std::size_t kShown = 12;
  std::string text;
  for (std::size_t i = 0; i < std::min(items.size(), kShown); ++i) text += (i ? ", " : "") + items[i];
  return items.size() > kShown ? cat(text, " and ", items.size() - kShown, " more") : text;
}

VitConfig infer_config(NamedTensors& tensors, const ImportOptions& options, bool hugging_face,
                       const std::string& source, std::vector<std::string>* notes) {
  return Inference(tensors, options, hugging_face, source, notes).run();
}

}  // namespace eg
