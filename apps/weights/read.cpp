// apps/weights/read.cpp - weights from a file, or from a run of ours.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/plugin.h"
#include "apps/run/checkpoint.h"
#include "apps/run/config.h"
#include "apps/setup.h"
#include "apps/weights/infer.h"
#include "engine/file.h"
#include "engine/safetensors.h"
#include "layers/freeze.h"
#include "optim/optimizer.h"

namespace eg {
namespace {

namespace fs = std::filesystem;

bool any_matches(const std::vector<std::string>& patterns, const std::string& name) {
  for (const std::string& p : patterns)
    if (matches(p, name)) return true;
  return false;
}

/// An option that says otherwise than the file would make another network of the same weights.
void check_agrees(const ImportOptions& o, int heads, double eps, const std::string& pool, const std::string& gelu,
                  const std::string& source) {
  const auto agrees = [&](const char* flag, const auto& given, const auto& theirs, bool open) {
    check(open || given == theirs, Kind::usage, [&] {
      return cat(flag, ' ', given, " does not go with ", source, ", which says ", theirs,
                 "; leave the flag out: the file brings it");
    });
  };
  agrees("--heads", o.heads, heads, o.heads == 0), agrees("--eps (--norm-eps)", o.eps, eps, o.eps == 0.0);
  agrees("--pool", o.pool, pool, o.pool.empty()), agrees("--gelu", o.gelu, gelu, o.gelu.empty());
}

/// What our metadata says, where the options leave it open. Throws Error{format} when it makes no sense.
ImportOptions with_metadata(ImportOptions o, const SafetensorsFile& file) {
  const auto at = file.metadata().find("evergrad");
  if (at == file.metadata().end()) return o;
  try {
    const nlohmann::json m = nlohmann::json::parse(at->second);
    const int heads = m.at("heads").get<int>();
    const double eps = m.at("eps").get<double>();
    const auto pool = m.at("pool").get<std::string>(), gelu = m.at("gelu").get<std::string>();
    const bool known =
        (pool == "token" || pool == "mean" || pool == "mean-with-token") && (gelu == "erf" || gelu == "tanh");
    check(heads > 0 && heads <= 65536 && eps > 0.0 && eps <= 1.0 && known, Kind::format,
          [&] { return cat(file.source(), ": the metadata 'evergrad' is ", at->second.substr(0, 200)); });
    check_agrees(o, heads, eps, pool, gelu, file.source());
    if (o.heads == 0) o.heads = heads;
    if (o.eps == 0.0) o.eps = eps;
    if (o.pool.empty()) o.pool = pool;
    if (o.gelu.empty()) o.gelu = gelu;
  } catch (const nlohmann::json::exception& e) {
    fail(Kind::format, cat(file.source(), ": the metadata 'evergrad' cannot be read: ", e.what()));
  }
  return o;
}

NamedTensors load_all(const SafetensorsFile& file, const std::vector<std::string>& drop,
                      std::vector<std::string>* notes) {
  NamedTensors tensors;
  std::vector<std::string> dropped, mistyped, bad;
  for (const SafetensorsEntry& e : file.entries()) {
    if (any_matches(drop, e.name)) {
      dropped.push_back(e.name);
    } else if (!is_float(e.dtype)) {
      mistyped.push_back(cat(e.name, " (", e.stored, " at byte ", e.begin, ")"));
    } else {
      Tensor t = file.load(e, kCpu);
      const std::vector<double> values = t.to_host();
      if (t.dtype() == DType::bf16) t = Tensor::from(values, t.shape(), DType::f32, kCpu);
      for (std::size_t i = 0; i < values.size(); ++i)
        if (!std::isfinite(values[i])) {
          bad.push_back(cat(e.name, " (", values[i], " at position ", i, ")"));
          break;
        }
      tensors[e.name] = t;
    }
  }
  for (const std::string& pattern : drop)
    check(std::any_of(dropped.begin(), dropped.end(), [&](const auto& name) { return matches(pattern, name); }),
          Kind::usage, [&] { return cat("--drop ", pattern, " fits no tensor of ", file.source()); });
  if (!dropped.empty() && notes) notes->push_back("left out, as asked: " + some_of(dropped));
  check(mistyped.empty(), Kind::format, [&] {
    return cat(file.source(), ": weights must be F64, F32, F16 or BF16; these are not: ", some_of(mistyped),
               "; --drop PATTERN leaves tensors out");
  });
  check(bad.empty(), Kind::format,
        [&] { return cat(file.source(), ": weights that are not finite: ", some_of(bad), "; the file is damaged"); });
  return tensors;
}

ModelWeights from_file(const SafetensorsFile& file, const ImportOptions& given, std::vector<std::string>* notes) {
  const ImportOptions options = with_metadata(given, file);
  ModelWeights w;
  w.source = file.source();
  w.tensors = load_all(file, options.drop, notes);
  const bool hugging_face = is_hugging_face(w.tensors);
  if (hugging_face) w.tensors = to_timm(std::move(w.tensors));
  w.config = infer_config(w.tensors, options, hugging_face, w.source, notes);
  if (notes && w.config.classes == 0) notes->push_back("the file has no head");
  return w;
}

// ---- a run of ours ------------------------------------------------------------------------------------------------------

ModelOptions model_options(const Config& c) {
  ModelOptions o;
  const auto whole = [&](const char* key) { return int(c.whole(key)); };
  o.model = c.text("model"), o.pool = c.text("pool"), o.pos = c.text("pos"), o.gelu = c.text("gelu");
  o.image_size = whole("image-size"), o.patch = whole("patch"), o.dim = whole("dim"), o.depth = whole("depth");
  o.heads = whole("heads"), o.channels = whole("channels"), o.registers = whole("registers");
  o.mlp_ratio = c.number("mlp-ratio"), o.layer_scale = c.number("layer-scale"), o.qk_norm = c.flag("qk-norm");
  if (c.find("norm-eps")) o.norm_eps = c.number("norm-eps");
  if (c.find("norm-first")) o.norm_first = c.flag("norm-first");
  return o;
}

/// The number of classes at which the parameters, each padded as ParamArena does, fill `size` elements. The head is the
/// only tensor that depends on it. 0: there is none.
std::int64_t classes_of(const VitConfig& config, std::int64_t size) {
  const auto padded = [](std::int64_t n) { return (n + 15) / 16 * 16; };
  Vit model = make_vit(config);
  std::int64_t rest = size;
  for (const Param* p : parameters(model))
    if (p->module != eg::Module::head) rest -= padded(p->size());
  std::int64_t found = 0;
  for (std::int64_t classes = 1; classes * (config.dim + 1) <= rest; ++classes) {
    if (padded(classes) + padded(classes * config.dim) != rest) continue;
    check(found == 0, Kind::usage, [&] {
      return cat("the checkpoint of a network of width ", config.dim, " does not tell ", found, " classes from ",
                 classes,
                 ", because parameters are padded to 16 numbers; networks of width 16 and more can be taken out");
    });
    found = classes;
  }
  return found;
}

ModelWeights from_run(const fs::path& path, const ImportOptions& options, std::vector<std::string>* notes) {
  check(options.drop.empty(), Kind::usage, [&] {
    return cat("--drop ", options.drop[0], " is for files of other libraries; ", path.string(), " belongs to a run");
  });
  const Checkpoint checkpoint = open_checkpoint(path);
  const std::string config_file = config_of(path);
  check(!config_file.empty(), Kind::io, [&] {
    return cat(path.string(), " is a checkpoint, but the config.toml of its run is neither beside it nor above it");
  });
  const Config config = Config::read(config_file);
  const bool stream = config.find("protocol") != nullptr;
  const auto current = checkpoint.state.find("current");
  const bool told = current != checkpoint.state.end() && current->is_object() && current->contains("method");
  check(!stream || told, Kind::format, [&] { return cat(path.string(), " does not say which method it belongs to"); });
  if (config.find("plugin")) load_plugins(config.text("plugin"));
  const std::string method = stream ? current->at("method").get<std::string>() : config.text("method");
  if (notes && stream) {
    std::string who = cat("trained with ", method);
    if (current->contains("seed")) who += cat(", seed ", current->at("seed").get<std::uint64_t>());
    notes->push_back(who + "; other checkpoints of the run hold its other methods and seeds");
  }
  const SafetensorsEntry* entry = checkpoint.tensors.find("ema");
  if (!entry) entry = checkpoint.tensors.find("weights");
  check(entry != nullptr, Kind::format, [&] {
    return cat(checkpoint.tensors.source(),
               " holds no tensor 'weights': it was written between two runs (a method with a "
               "seed); give an older .json of its folder");
  });
  const ModelChange change = model_change(parse_method(method));
  check(!change.crelu && !change.prompts.pool, Kind::usage, [&] {
    return cat(path.string(), " was trained with ", method, ", whose ", change.crelu ? "concatenated ReLU" : "prompts",
               " neither timm nor Hugging Face has; where the run had other methods, give one of their checkpoints "
               "(checkpoints/step-N.safetensors)");
  });

  ModelWeights w;
  w.source = checkpoint.tensors.source();
  w.config = vit_of(model_options(config), 1, DType::f32);
  w.config.classes = int(classes_of(w.config, entry->shape.size()));
  check(w.config.classes > 0 && entry->shape.rank() == 1, Kind::format, [&] {
    return cat(w.source, ": the tensor ", entry->name, ' ', entry->shape, " does not fit the model of ", config_file);
  });
  check_agrees(options, w.config.heads, w.config.eps, pool_name(w.config),
               w.config.gelu == GeluKind::tanh ? "tanh" : "erf", w.source);
  Vit model = make_vit(w.config);
  const std::vector<Param*> params = parameters(model);
  ParamArena arena;
  arena.build(params, kCpu, DType::f32);
  const Tensor all = checkpoint.tensors.load(*entry, kCpu);
  for (const Param* p : params) w.tensors[p->name] = all.slice(p->offset, p->size()).reshape(p->shape).clone();
  return w;
}

}  // namespace

ModelWeights read_weights(const fs::path& path, const ImportOptions& options, std::vector<std::string>* notes) {
  std::error_code error;
  if (fs::is_directory(path, error) || path.extension() == ".json") return from_run(path, options, notes);
  const SafetensorsFile file = SafetensorsFile::open(path);
  if (file.find("weights") && file.find("step_record")) return from_run(path, options, notes);
  return from_file(file, options, notes);
}

std::string checksum_of(const ModelWeights& weights) {
  Checksum sum;
  for (const auto& [name, tensor] : weights.tensors) {
    sum.update(std::as_bytes(std::span(name)));
    sum.update({static_cast<const std::byte*>(tensor.data()), tensor.bytes()});
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(sum.value()));
  return text;
}

void load_weights(const ModelWeights& weights, std::span<Param* const> params) {
  std::size_t used = 0;
  for (Param* p : params) {
    const auto at = weights.tensors.find(p->name);
    if (at == weights.tensors.end()) {
      // A head for other classes is drawn, and so are the prompts that a method adds to the network.
      check(p->module == eg::Module::head || p->name.starts_with("prompt."), Kind::internal,
            [&] { return cat(weights.source, " holds no ", p->name, ", which this model has"); });
      continue;
    }
    check(at->second.shape() == p->shape, Kind::shape, [&] {
      return cat(weights.source, ": ", p->name, " has shape ", at->second.shape(), ", this model's has ", p->shape);
    });
    p->master.copy_from(Tensor::from(at->second.to_host(), p->shape, p->master.dtype(), p->master.device()));
    p->imported = true;
    ++used;
  }
  check(used == weights.tensors.size(), Kind::internal, [&] {
    return cat(weights.source, " holds ", weights.tensors.size(), " tensors, of which this model has ", used);
  });
}

}  // namespace eg
