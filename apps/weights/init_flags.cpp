// apps/weights/init_flags.cpp - see init_flags.h.
#include "apps/weights/init_flags.h"

#include <CLI/CLI.hpp>

#include "engine/error.h"
#include "engine/safetensors.h"

namespace eg {
namespace {

/// What goes wrong with the file is said to be --init's: a run may be opened long after it began.
ModelWeights read_init(const ModelOptions& o, const ImportOptions& i, std::vector<std::string>* notes) {
  try {
    return read_weights(o.init, i, notes);
  } catch (const Error& e) {
    fail(e.kind, cat("the weights that the run starts from, --init ", o.init, ": ", e.what()));
  }
}

}  // namespace

void apply_init(const CLI::App& sub, ModelOptions& o) {
  if (o.init.empty()) return;
  const auto given = [&](const char* flag) { return sub.get_option(flag)->count() > 0; };
  ImportOptions i;
  if (given("--heads") && o.heads > 0) i.heads = o.heads;
  if (given("--norm-eps")) i.eps = o.norm_eps;
  if (given("--pool")) i.pool = o.pool;
  if (given("--gelu")) i.gelu = o.gelu;
  const ModelWeights w = read_init(o, i, nullptr);
  const VitConfig& c = w.config;
  const auto fixed = [&](const char* flag, auto& value, const auto& theirs, bool zero_is_open = false) {
    const bool open = !given(flag) || (zero_is_open && value == std::decay_t<decltype(value)>{});
    check(open || value == theirs, Kind::usage, [&] {
      return cat(flag, ' ', value, " does not go with --init ", o.init, ", which has ", theirs,
                 "; leave the flag out: the file brings it");
    });
    value = theirs;
  };
  const auto free = [&](const char* flag, auto& value, const auto& theirs) {
    if (!given(flag)) value = theirs;
  };
  fixed("--dim", o.dim, c.dim, true), fixed("--depth", o.depth, c.depth, true);
  fixed("--heads", o.heads, c.heads, true);
  fixed("--pool", o.pool, pool_name(c)), fixed("--registers", o.registers, c.registers);
  fixed("--qk-norm", o.qk_norm, c.qk_norm), fixed("--norm-first", o.norm_first, c.norm_first);
  fixed("--pos", o.pos, std::string(c.pos == PosEmbed::sincos ? "sincos" : "learned"));
  fixed("--mlp-ratio", o.mlp_ratio, c.mlp_ratio);
  if (!given("--layer-scale") || o.layer_scale == 0.0 || c.layer_scale == 0.0)
    fixed("--layer-scale", o.layer_scale, c.layer_scale);
  free("--image-size", o.image_size, c.image_size), free("--patch", o.patch, c.patch);
  free("--channels", o.channels, c.channels), free("--norm-eps", o.norm_eps, c.eps);
  free("--gelu", o.gelu, std::string(c.gelu == GeluKind::tanh ? "tanh" : "erf"));
}

std::shared_ptr<const ModelWeights> initial_weights(const ModelOptions& o, const VitConfig& target,
                                                    std::vector<std::string>* notes) {
  if (o.init.empty()) return nullptr;
  ImportOptions i;
  i.heads = o.heads, i.eps = o.norm_eps, i.pool = o.pool, i.gelu = o.gelu;
  return std::make_shared<const ModelWeights>(fitted(read_init(o, i, notes), target, notes));
}

bool is_weights_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error) || std::filesystem::path(path).extension() != ".safetensors")
    return false;
  if (std::filesystem::exists(std::filesystem::path(path).replace_extension(".json"), error)) return false;
  const SafetensorsFile file = SafetensorsFile::open(path);
  // A checkpoint's file says so; those of before are known by what they hold.
  const auto format = file.metadata().find("format");
  if (format != file.metadata().end() && format->second.starts_with("evergrad checkpoint")) return false;
  return !(file.find("weights") && file.find("step_record"));
}

void add_import_options(CLI::App& sub, ImportOptions& o) {
  sub.add_option("--heads", o.heads, "Attention heads, which shapes do not tell (default: width / 64)")
      ->check(CLI::Range(1, 4096));
  sub.add_option("--eps", o.eps, "Eps of the layer norms (default: 1e-6, Hugging Face: 1e-12)")
      ->check(number_in(1e-20, 1.0));
  sub.add_option(
         "--pool", o.pool,
         "What the head reads: token, mean or mean-with-token (default: by the presence of cls_token and fc_norm)")
      ->check(CLI::IsMember({"token", "mean", "mean-with-token"}));
  sub.add_option("--gelu", o.gelu, "erf or tanh (default: erf)")->check(CLI::IsMember({"erf", "tanh"}));
  sub.add_option("--drop", o.drop,
                 "Leave out tensors whose names fit, for example 'pooler.*'; may be given several times")
      ->delimiter(',');
}

}  // namespace eg
