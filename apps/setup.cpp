// apps/setup.cpp - see setup.h.
#include "apps/setup.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <set>

#include "apps/distributed/launch.h"
#include "apps/plugin.h"
#include "engine/cpu/features.h"
#include "engine/kernel_cache.h"
#include "engine/parallel.h"

namespace eg {
namespace {

/// Where measuring says nothing (the emulated device) `auto` is `hand`.
KernelMode resolve_kernels(const MachineOptions& o, Device device) {
  const KernelMode mode = parse_kernel_mode(o.kernels);
  check(!o.deterministic || mode != KernelMode::library, Kind::usage, [] {
    return std::string(
        "--deterministic takes evergrad's own kernels, --kernels library others; leave out one of the two");
  });
  if (device.is_host() || o.deterministic) return KernelMode::hand;
  return mode == KernelMode::automatic && !kernel_choices(device).can_measure() ? KernelMode::hand : mode;
}

}  // namespace

ResolvedMachine resolve_machine(const MachineOptions& o, int ranks) {
  set_num_threads(o.threads);
  if (o.threads == 0 && ranks > 1) set_num_threads(std::max(1, num_threads() / ranks_on_this_host()));
  ResolvedMachine m;
  m.ranks = ranks, m.zero = o.zero, m.reduce_bf16 = o.reduce == "bf16";
  m.plugin = load_plugins(o.plugin);
  m.record_steps = !o.no_graph, m.deterministic = o.deterministic;
  m.device = parse_device(o.device);
  kernels(m.device);  // throws when the device is not here
  m.kernels = resolve_kernels(o, m.device);
  if (!m.device.is_host())
    kernel_choices(m.device).start({.mode = m.kernels, .cache = cache_folder(), .measures = ranks == 1});
  m.precision = o.precision;
  if (o.precision == "auto") {
    const cpu::Features& f = cpu::features();
    const bool fast = m.device == kCpu ? f.amx_bf16 || f.bf16_dot_fast : m.device.type == DeviceType::cuda;
    m.precision = fast ? "bf16" : "fp32";
  }
  check(!(m.device == kReference && m.precision == "bf16"), Kind::usage, [] {
    return std::string("--device reference computes in double precision; use --precision fp32 or auto with it");
  });
  m.activation = m.device == kReference ? DType::f64 : m.precision == "bf16" ? DType::bf16 : DType::f32;
  return m;
}

std::shared_ptr<const Dataset> open_data(const DataOptions& o) {
  DatasetOptions d;
  d.test_share = o.test_share;
  d.on_corrupt = o.corrupt == "skip" ? OnCorrupt::skip : OnCorrupt::fail;
  std::shared_ptr<const Dataset> data = open_dataset(o.stream, o.data, d);
  for (const std::string& warning : data->warnings()) std::cerr << "evergrad: " << warning << '\n';
  return data;
}

VitConfig vit_of(const ModelOptions& o, std::int64_t classes, DType activation) {
  VitConfig c = vit_config(o.model, o.image_size, o.patch, o.dim, o.depth, o.heads);
  c.channels = o.channels;
  c.classes = int(classes);
  c.mlp_ratio = o.mlp_ratio;
  c.class_token = o.pool != "mean";
  c.mean_pool = o.pool == "mean-with-token";
  c.norm_first = o.norm_first;
  c.eps = o.norm_eps;
  c.pos = o.pos == "sincos" ? PosEmbed::sincos : PosEmbed::learned;
  c.gelu = o.gelu == "tanh" ? GeluKind::tanh : GeluKind::erf;
  c.qk_norm = o.qk_norm;
  c.layer_scale = o.layer_scale;
  c.drop_path = o.drop_path;
  c.registers = o.registers;
  c.recompute = o.recompute;
  c.precision = activation;
  return c;
}

void resolve_model(ModelOptions& o) {
  const VitConfig c = vit_config(o.model, o.image_size, o.patch, o.dim, o.depth, o.heads);
  o.dim = c.dim, o.depth = c.depth, o.heads = c.heads;
}

LoaderConfig base_loader(const DataOptions& data, const ModelOptions& model, std::int64_t batch, std::int64_t classes,
                         bool training) {
  LoaderConfig c;
  c.format = {model.channels, model.image_size};
  c.batch = batch;
  c.shuffle = training;
  c.workers = data.workers;
  if (!training) return c;
  c.augment = parse_augment(data.augment, model.image_size);
  c.augment.randaugment_ops = data.randaugment;
  c.augment.mixup = data.mixup;
  c.augment.cutmix = data.cutmix;
  if (c.augment.mixes()) c.soft_classes = classes;
  return c;
}

namespace {
std::int64_t ranks_of(const Config& c) { return c.find(kRanksKey) ? c.whole(kRanksKey) : 1; }

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ",") + part;
  return text;
}
}  // namespace

bool is_record(std::string_view key) {
  return key == kSettingsKey || key == kRanksKey || key == kKernelChoicesKey || key == kKernelDeviceKey ||
         key == kInitKey;
}

void check_resumable(const RunFolder& folder, const Config& now) { check_resumable(folder.path(), now); }

void check_resumable(const std::filesystem::path& folder, const Config& now) {
  Config before = Config::read(folder / "config.toml");
  // Runs of before --kernels had evergrad's own.
  if (now.find("kernels") && !before.find("kernels")) before.set("kernels", to_string(KernelMode::hand));
  std::set<std::string, std::less<>> free{
      "checkpoint-seconds", "workers", "no-graph", "plugin", "zero", kRanksKey, kKernelChoicesKey, kKernelDeviceKey};
  if (!before.find(kInitKey)) free.insert(kInitKey);  // a run of before it was kept
  // Another number of ranks has other shares of the cores.
  if (ranks_of(before) != ranks_of(now)) free.insert("threads");
  // The flags first: a changed --lr explains more than the changed settings that follow from it.
  std::set<std::string, std::less<>> but_settings = free;
  but_settings.insert(kSettingsKey);
  check_same_config(before, now, folder, but_settings);
  check_same_config(before, now, folder, free);
}

std::string config_of(const std::filesystem::path& checkpoint) {
  std::error_code error;
  std::filesystem::path folder = std::filesystem::absolute(checkpoint, error);
  for (int up = 0; up < 3 && !folder.empty(); ++up, folder = folder.parent_path())
    if (std::filesystem::exists(folder / "config.toml", error)) return (folder / "config.toml").string();
  return {};
}

void write_shared(Config& c, const DataOptions& d, const TrainingOptions& t, const ModelOptions& m,
                  const ResolvedMachine& machine) {
  if (d.test_share != DataOptions{}.test_share) c.set("test-share", d.test_share);
  c.set("corrupt", d.corrupt), c.set("augment", d.augment), c.set("randaugment", d.randaugment),
      c.set("mixup", d.mixup);
  c.set("cutmix", d.cutmix), c.set("workers", d.workers);
  c.set("epochs", t.epochs), c.set("batch", t.batch), c.set("accumulate", t.accumulate);
  if (t.lr >= 0.0) c.set("lr", t.lr);
  if (t.weight_decay >= 0.0) c.set("weight-decay", t.weight_decay);
  c.set("clip-norm", t.clip_norm), c.set("smoothing", t.smoothing), c.set("ema", t.ema);
  c.set("schedule", t.schedule), c.set("warmup-steps", t.warmup_steps), c.set("train-limit", t.train_limit),
      c.set("test-limit", t.test_limit);
  c.set("model", m.model), c.set("image-size", m.image_size), c.set("patch", m.patch), c.set("dim", m.dim),
      c.set("depth", m.depth);
  c.set("heads", m.heads), c.set("channels", m.channels), c.set("mlp-ratio", m.mlp_ratio), c.set("pool", m.pool),
      c.set("pos", m.pos);
  c.set("gelu", m.gelu), c.set("qk-norm", m.qk_norm), c.set("recompute", m.recompute),
      c.set("layer-scale", m.layer_scale);
  c.set("drop-path", m.drop_path), c.set("registers", m.registers);
  // Only where they say something: runs of before have no such keys, and can still be resumed.
  if (m.norm_eps != 1e-6) c.set("norm-eps", m.norm_eps);
  if (m.norm_first) c.set("norm-first", true);
  if (!m.init.empty())
    c.set("init", std::filesystem::absolute(m.init).lexically_normal().string());  // as from any folder
  if (!m.freeze.empty()) c.set("freeze", joined(m.freeze));
  c.set("device", to_string(machine.device)), c.set("precision", machine.precision), c.set("threads", num_threads());
  c.set("no-graph", !machine.record_steps);
  if (!machine.device.is_host()) c.set("kernels", to_string(machine.kernels));
  if (machine.deterministic) c.set("deterministic", true);
  if (machine.zero) c.set("zero", machine.zero);
  if (machine.reduce_bf16) c.set("reduce", "bf16");
  if (machine.ranks > 1) c.set(kRanksKey, machine.ranks);
  if (!machine.plugin.empty()) c.set("plugin", machine.plugin);
}

}  // namespace eg
