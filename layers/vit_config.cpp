// layers/vit_config.cpp - presets, checks, and arithmetic on sizes.
#include "layers/vit_config.h"

#include <algorithm>
#include <cmath>

#include "layers/vit.h"

namespace eg {
namespace {

struct Preset {
  const char* name;
  int dim, depth, heads;
};
constexpr Preset kPresets[] = {
    {"vit-ti", 192, 12, 3}, {"vit-s", 384, 12, 6}, {"vit-b", 768, 12, 12}, {"vit-l", 1024, 24, 16}};

void check_range(const char* flag, std::int64_t value, std::int64_t low, std::int64_t high) {
  check(value >= low && value <= high, Kind::usage,
        [&] { return cat(flag, " must lie between ", low, " and ", high, ", got ", value); });
}

// Operations of one image, forward.
double embed_flops(const VitConfig& c) { return 2.0 * double(c.patches()) * c.channels * c.patch * c.patch * c.dim; }
double head_flops(const VitConfig& c) { return 2.0 * c.dim * c.classes; }
/// `rest`: how many of the `s` tokens go through what comes after the mixing.
double block_flops(const VitConfig& c, double s, double rest) {
  const double d = c.dim, h = double(c.hidden() + c.hidden_outputs());
  return s * 6 * d * d + 4 * s * s * d + rest * (2 * d * d + 2 * d * h);
}

/// The pass without prompts that makes the query; `narrow`: its last block goes on with the class token alone.
double query_flops(const VitConfig& c, bool narrow) {
  const double s = double(c.tokens() - c.prompt_tokens());
  return (c.depth - 1) * block_flops(c, s, s) + block_flops(c, s, narrow ? 1.0 : s);
}

// Bytes that the blocks of one batch keep, split where narrow_last cuts.
struct Kept {
  double front = 0.0;  // input, first norm, projections, mixed tokens
  double back = 0.0;   // second sum and norm, MLP
  double total() const { return front + back; }
};
Kept kept_by_block(const VitConfig& c, double tokens, double rest) {
  const double e = double(size_of(c.precision)), stat = c.precision == DType::f64 ? 8.0 : 4.0;
  const double d = c.dim, h = double(c.hidden() + c.hidden_outputs()), scaled = c.layer_scale > 0.0 ? d : 0.0;
  const double qkv = c.qk_norm ? 6 * d : 3 * d, qkv_statistics = c.qk_norm ? 4.0 * c.heads : 0.0;
  return {tokens * (e * (2 * d + qkv + d) + stat * (2 + c.heads + qkv_statistics)) + rest * e * scaled,
          rest * (e * (2 * d + h + scaled) + stat * 2)};
}

/// The worst moment of one block's backward beyond what is kept: inside the MLP (gradient of the stream, of the hidden
/// layer and of the normalised input), or inside attention (stream, mixed tokens, projections), when the MLP's is free.
double backward_extra(const VitConfig& c, const Kept& kept, double tokens, double rest) {
  const double e = double(size_of(c.precision)), d = c.dim;
  // With CReLU a step of its own takes the gradient from the outputs back to the units.
  const double h = double(c.hidden()) + (c.activation == Activation::crelu ? double(c.hidden_outputs()) : 0.0);
  const double mlp = rest * e * (2 * d + h + (c.layer_scale > 0.0 ? d : 0.0));
  const double mixing = tokens * e * (c.qk_norm ? 8 * d : 5 * d) - kept.back;
  return std::max(mlp, mixing);
}

}  // namespace

std::vector<std::string> vit_presets() {
  std::vector<std::string> names;
  for (const Preset& p : kPresets) names.emplace_back(p.name);
  return names;
}

VitConfig vit_config(const std::string& preset, int image_size, int patch, int dim, int depth, int heads) {
  const auto* const p =
      std::find_if(std::begin(kPresets), std::end(kPresets), [&](const Preset& q) { return preset == q.name; });
  check(p != std::end(kPresets), Kind::usage,
        [&] { return cat("--model: there is no preset '", preset, "'; known: vit-ti, vit-s, vit-b, vit-l"); });
  VitConfig c;
  c.dim = dim ? dim : p->dim, c.depth = depth ? depth : p->depth;
  c.heads = heads ? heads : p->heads;
  if (image_size) c.image_size = image_size;
  if (patch) c.patch = patch;
  check_config(c);
  return c;
}

void check_config(const VitConfig& c) {
  check_range("--image-size", c.image_size, 1, 16384);
  check_range("--patch", c.patch, 1, 16384);
  check_range("--channels", c.channels, 1, 4096);
  check_range("--dim", c.dim, 1, 65536);
  check_range("--depth", c.depth, 1, 4096);
  check_range("--heads", c.heads, 1, 65536);
  check_range("the number of classes", c.classes, 1, 100000000);
  check_range("--registers", c.registers, 0, 4096);
  check(c.image_size % c.patch == 0, Kind::usage, [&] {
    return cat("--image-size ", c.image_size, " is not a multiple of --patch ", c.patch, "; every patch must be whole");
  });
  check(c.dim % c.heads == 0, Kind::usage, [&] {
    return cat("--dim ", c.dim, " is not a multiple of --heads ", c.heads, "; every head must have the same width");
  });
  check(std::isfinite(c.mlp_ratio) && c.mlp_ratio > 0.0 && c.mlp_ratio <= 64.0, Kind::usage,
        [&] { return cat("--mlp-ratio must lie in (0, 64], got ", c.mlp_ratio); });
  check(c.hidden() > 0, Kind::usage, [&] {
    return cat("--mlp-ratio ", c.mlp_ratio, " leaves no hidden unit at --dim ", c.dim, "; use a larger one");
  });
  check(c.pos != PosEmbed::sincos || c.dim % 4 == 0, Kind::usage,
        [&] { return cat("--pos sincos needs a --dim that is a multiple of 4, got ", c.dim); });
  check(c.drop_path >= 0.0 && c.drop_path < 1.0, Kind::usage,
        [&] { return cat("--drop-path is a probability below 1, got ", c.drop_path); });
  check(std::isfinite(c.layer_scale) && c.layer_scale >= 0.0, Kind::usage,
        [&] { return cat("--layer-scale is a positive starting value, or 0 for none; got ", c.layer_scale); });
  check(!c.norm_first || c.pools_mean(), Kind::usage, [] {
    return std::string("--norm-first norms every token before their mean; use it with --pool mean or mean-with-token");
  });
  check(std::isfinite(c.eps) && c.eps > 0.0, Kind::usage,
        [&] { return cat("the layer norms' eps must be positive, got ", c.eps); });
  const PromptPool& p = c.prompts;
  check(p.pool == 0 || (p.pool > 0 && p.length > 0 && p.select > 0 && p.select <= p.pool), Kind::usage, [&] {
    return cat("a prompt pool of ", p.pool, " prompts cannot give an image ", p.select, " of ", p.length,
               " tokens; use at least one of each, and select at most the pool");
  });
  check(p.pool == 0 || !c.pools_mean(), Kind::usage, [] {
    return std::string("a prompt pool (l2p) needs a class token, whose feature chooses prompts; leave out --pool mean");
  });
  check(is_float(c.precision), Kind::usage, [&] { return cat("activations cannot be held as ", c.precision); });
}

double VitConfig::forward_flops() const {
  const double s = double(tokens());
  return depth * block_flops(*this, s, s) + (prompts.pool ? query_flops(*this, false) : 0.0) + embed_flops(*this) +
         head_flops(*this);
}
double VitConfig::train_flops() const {
  if (!prompts.pool) return 3.0 * forward_flops() - embed_flops(*this);
  // The query needs no gradient, and frozen weights get none: a block's backward is half as long.
  const double query = query_flops(*this, false), ends = embed_flops(*this) + head_flops(*this);
  return 2.0 * (forward_flops() - query - ends) + query + embed_flops(*this) + 3.0 * head_flops(*this);
}
double VitConfig::executed_train_flops() const {
  double blocks = 0.0;
  for (int i = 0; i < depth; ++i) blocks += block_flops(*this, double(tokens()), narrows(i) ? 1.0 : double(tokens()));
  const double again = recompute ? 1.0 : 0.0;
  if (prompts.pool)
    return (2.0 + again) * blocks + query_flops(*this, narrow_last) + embed_flops(*this) + 3.0 * head_flops(*this);
  return (3.0 + again) * blocks + 2.0 * embed_flops(*this) + 3.0 * head_flops(*this);
}

std::int64_t VitConfig::parameter_count() const {
  Vit v = make_vit(*this);
  std::int64_t n = 0;
  visit_params(v, [&](const Param& p) { n += p.size(); });
  return n;
}

MemoryPlan VitConfig::memory_plan(std::int64_t batch) const {
  const double images = double(batch), all = images * double(tokens()), e = double(size_of(precision));
  const double parameters = double(parameter_count()), master = precision == DType::f64 ? 8.0 : 4.0;
  const double ends = images * e * (double(patches()) * channels * patch * patch + 4.0 * dim + 2.0 * classes);
  const double stream = all * e * dim;  // one token matrix

  double live = ends + (norm_first && pools_mean() ? 2.0 * stream : 0.0);  // the last norm's input and output
  double peak = 0.0;  // walks forward: what earlier blocks keep is live while a later one runs backward
  for (int i = 0; i < depth; ++i) {
    const double rest = narrows(i) ? images : all;
    const Kept kept = kept_by_block(*this, all, rest);
    peak = std::max(peak, live + kept.total() + backward_extra(*this, kept, all, rest));
    live += recompute ? stream : kept.total();
  }
  return {.weights = parameters * (master + (precision == DType::bf16 ? 2.0 : 0.0)),
          .gradients = parameters * master,
          .activations = peak};
}

std::string VitConfig::describe() const {
  // Two decimals, and two digits of what is smaller: a model for trying things out needs a hundredth of a GFLOP.
  const double exact = std::max(train_flops() * 1e-9, 1e-9);
  const double unit = std::pow(10.0, std::min(-2.0, std::floor(std::log10(exact)) - 1.0));
  const double gflop = std::round(exact / unit) * unit;
  return cat("ViT ", image_size, "/", patch, ", width ", dim, ", ", depth, " blocks, ", heads, " heads, ", tokens(),
             " tokens", prompts.pool ? cat(" (", prompt_tokens(), " of prompts)") : "", ", ",
             activation == Activation::crelu ? "CReLU, " : "", classes ? cat(classes, " classes") : "no head yet", ": ",
             parameter_count(), " parameters, ", gflop, " GFLOP per training image");
}

}  // namespace eg
