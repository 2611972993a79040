// apps/options.cpp - see options.h.
#include "apps/options.h"

#include <CLI/CLI.hpp>

#include <charconv>
#include <cstdlib>
#include <iomanip>
#include <sstream>

#include "apps/setup.h"
#include "data/dataset.h"
#include "engine/error.h"
#include "engine/file.h"
#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

namespace eg {

CLI::Validator number_in(double low, double high) {
  const auto range = cat("[", low, " - ", high, "]");
  return CLI::Validator(
      [=](std::string& text) {
        char* end = nullptr;
        const double value = std::strtod(text.c_str(), &end);
        const bool good = !text.empty() && *end == '\0' && value >= low && value <= high;  // false for nan
        return good ? std::string() : cat("Value ", text, " is not a number in ", range);
      },
      "NUMBER in " + range);
}

void add_model_options(CLI::App& sub, ModelOptions& o) {
  constexpr const char* group = "Model";
  sub.add_option("--model", o.model, "Preset: vit-ti (192 wide, 12 deep, 3 heads), vit-s, vit-b, vit-l")
      ->capture_default_str()
      ->check(CLI::IsMember({"vit-ti", "vit-s", "vit-b", "vit-l"}))
      ->group(group);
  sub.add_option("--image-size", o.image_size, "Side of the square input images in pixels")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096))
      ->group(group);
  sub.add_option("--patch", o.patch, "Side of a patch in pixels; must divide the image size")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024))
      ->group(group);
  sub.add_option("--dim", o.dim, "Width of the tokens (0: the preset's)")->check(CLI::Range(0, 16384))->group(group);
  sub.add_option("--depth", o.depth, "Number of transformer blocks (0: the preset's)")
      ->check(CLI::Range(0, 256))
      ->group(group);
  sub.add_option("--heads", o.heads, "Attention heads; must divide the width (0: the preset's)")
      ->check(CLI::Range(0, 256))
      ->group(group);
  sub.add_option("--channels", o.channels, "Image channels: 1 (grey) or 3 (RGB)")
      ->capture_default_str()
      ->check(CLI::IsMember({1, 3}))
      ->group(group);
  sub.add_option("--mlp-ratio", o.mlp_ratio, "Hidden width of the MLP over the token width")
      ->capture_default_str()
      ->check(number_in(0.1, 16.0))
      ->group(group);
  sub.add_option("--pool", o.pool,
                 "What the head reads: the class token, or the mean of the patch tokens, without a class token or "
                 "beside one (mean-with-token)")
      ->capture_default_str()
      ->check(CLI::IsMember({"token", "mean", "mean-with-token"}))
      ->group(group);
  sub.add_flag("--norm-first", o.norm_first, "With a mean: the last layer norm before it, not behind it")->group(group);
  sub.add_option("--norm-eps", o.norm_eps, "Added to the variance in every layer norm")
      ->capture_default_str()
      ->check(number_in(1e-20, 1.0))
      ->group(group);
  sub.add_option("--pos", o.pos, "Position embedding")
      ->capture_default_str()
      ->check(CLI::IsMember({"learned", "sincos"}))
      ->group(group);
  sub.add_option("--gelu", o.gelu, "Exact GELU, or its tanh approximation")
      ->capture_default_str()
      ->check(CLI::IsMember({"erf", "tanh"}))
      ->group(group);
  sub.add_flag("--qk-norm", o.qk_norm, "Layer norm on queries and keys")->group(group);
  sub.add_option("--layer-scale", o.layer_scale, "Initial layer scale of residual branches (0: none)")
      ->check(number_in(0.0, 10.0))
      ->group(group);
  sub.add_option("--drop-path", o.drop_path, "Stochastic depth of the last block, growing linearly over the blocks")
      ->check(number_in(0.0, 0.95))
      ->group(group);
  sub.add_option("--registers", o.registers, "Register tokens")->check(CLI::Range(0, 64))->group(group);
  sub.add_flag("--recompute", o.recompute, "Recompute each block's activations in backward: less memory, more time")
      ->group(group);
}

void add_start_options(CLI::App& sub, ModelOptions& o) {
  constexpr const char* group = "Model";
  sub.add_option(
         "--init", o.init,
         "Start from these weights: a file of evergrad import, timm or Hugging Face, or a run folder. They bring "
         "the model's flags; another --image-size or --patch resizes them, a head of another size is drawn")
      ->group(group);
  sub.add_option(
         "--freeze", o.freeze,
         "Do not train parameters whose names fit, for example blocks.*,patch_embed.*; may be given several times")
      ->delimiter(',')
      ->group(group);
}

/// Its parts are looked at when they are opened.
static CLI::Validator sequence_of_data_sets() {
  return CLI::Validator(
      [](std::string& text) {
        return text.rfind("sequence:", 0) == 0 ? std::string() : cat(text, " is no sequence:PART+PART");
      },
      "sequence:PART+PART");
}

void add_data_options(CLI::App& sub, DataOptions& o) {
  constexpr const char* group = "Data";
  sub.add_option(
         "--stream", o.stream,
         "Image source: procedural (embedded), cifar10, cifar100, idx (MNIST-style), folder, or several as one: "
         "sequence:cifar100+fashion-mnist+omniglot, where a part may name its folder (cifar100=DIR)")
      ->capture_default_str()
      ->check(CLI::IsMember(dataset_kinds()) | sequence_of_data_sets())
      ->group(group);
  sub.add_option("--data", o.data, "Folder with the data set's files")->group(group);
  sub.add_option("--corrupt", o.corrupt, "What a corrupt image file does: fail, or skip with a message")
      ->capture_default_str()
      ->check(CLI::IsMember({"fail", "skip"}))
      ->group(group);
  sub.add_option("--test-share", o.test_share,
                 "Share of every class that is its test set, in a folder without test/ or val/")
      ->capture_default_str()
      ->check(number_in(0.01, 0.99))
      ->group(group);
  sub.add_option("--augment", o.augment, "Training augmentation: none, crop, flip or crop-flip (4 pixels of padding)")
      ->capture_default_str()
      ->check(CLI::IsMember({"none", "crop", "flip", "crop-flip"}))
      ->group(group);
  sub.add_option("--randaugment", o.randaugment, "RandAugment operations per image (0: off)")
      ->check(CLI::Range(0, 8))
      ->group(group);
  sub.add_option("--mixup", o.mixup, "Mixup alpha (0: off)")->check(number_in(0.0, 10.0))->group(group);
  sub.add_option("--cutmix", o.cutmix, "CutMix alpha (0: off)")->check(number_in(0.0, 10.0))->group(group);
  sub.add_option("--workers", o.workers, "Threads that prepare batches in the background")
      ->capture_default_str()
      ->check(CLI::Range(1, 64))
      ->group(group);
}

void add_training_options(CLI::App& sub, TrainingOptions& o) {
  constexpr const char* group = "Training";
  sub.add_option("--epochs", o.epochs, "Passes over a task's training images")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000))
      ->group(group);
  sub.add_option("--batch", o.batch, "Images per update")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536))
      ->group(group);
  sub.add_option("--accumulate", o.accumulate,
                 "Split a batch into this many passes whose gradients are summed (less memory)")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024))
      ->group(group);
  sub.add_option("--lr", o.lr, "Base learning rate (default: the method's own)")
      ->check(number_in(0.0, 1e6))
      ->group(group);
  sub.add_option("--weight-decay", o.weight_decay, "Decay of weight matrices (default: the method's own)")
      ->check(number_in(0.0, 1e3))
      ->group(group);
  sub.add_option("--clip-norm", o.clip_norm, "Clip the gradient's global norm to this (0: never)")
      ->capture_default_str()
      ->check(number_in(0.0, 1e9))
      ->group(group);
  sub.add_option("--smoothing", o.smoothing, "Label smoothing")->check(number_in(0.0, 0.99))->group(group);
  sub.add_option("--ema", o.ema,
                 "Keep an exponential moving average of the weights with this decay, and evaluate it (0: off)")
      ->check(number_in(0.0, 0.999999))
      ->group(group);
  sub.add_option("--schedule", o.schedule, "Learning rate over a task: constant, or linear or cosine to zero")
      ->capture_default_str()
      ->check(CLI::IsMember({"constant", "linear", "cosine"}))
      ->group(group);
  sub.add_option("--warmup-steps", o.warmup_steps, "Linear warm-up at the start of each task")
      ->capture_default_str()
      ->check(CLI::Range(0, 100000000))
      ->group(group);
  sub.add_option("--train-limit", o.train_limit, "At most this many training images per task (0: all)")
      ->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 40))
      ->group(group);
  sub.add_option("--test-limit", o.test_limit, "At most this many test images per task (0: all)")
      ->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 40))
      ->group(group);
}

void add_machine_options(CLI::App& sub, MachineOptions& o) {
  constexpr const char* group = "Machine";
  sub.add_option("--device", o.device, "cpu, reference (double precision, slow, exact), emulated, cuda:N")
      ->capture_default_str()
      ->group(group);
  sub.add_option("--precision", o.precision, "fp32, bf16, or auto: bf16 where this machine is faster with it")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->group(group);
  sub.add_option(
         "--kernels", o.kernels,
         "cuda, emulated: hand (evergrad's own, by a rule), library (cuBLASLt's products and cuDNN's attention where "
         "they have the operation), or auto: the fastest of all, measured once per shape and then kept by the run "
         "(several ranks: what a run of one rank has measured)")
      ->capture_default_str()
      ->check(CLI::IsMember({"hand", "library", "auto"}))
      ->group(group);
  sub.add_flag(
         "--deterministic", o.deterministic,
         "cuda, emulated: nothing that is measured decides about a result: evergrad's own kernels (--kernels hand), "
         "and "
         "between GPUs sums in ascending order of ranks. Without it a repeat gives the same bits where it takes the "
         "same kernels, which a run notes in its config.toml")
      ->group(group);
  sub.add_option(
         "--zero", o.zero,
         "Under mpirun: 1 divides the update and its state among ranks (ZeRO stage 1; sgd, adam, adamw, arrow): "
         "less memory, and as many bytes sent where gradients are fp32")
      ->capture_default_str()
      ->check(CLI::IsMember({0, 1}))
      ->group(group);
  sub.add_option(
         "--reduce", o.reduce,
         "Under mpirun: the type in which gradients travel. auto: their own (fp32; bf16 with --precision bf16 on "
         "cuda and emulated). bf16: half the bytes of fp32, for two roundings of 0.4% at most: of each rank's "
         "gradient, and of their sum (more, among more than 16 GPUs without --deterministic)")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "bf16"}))
      ->group(group);
  sub.add_option("--plugin", o.plugin,
                 "Shared objects with methods of your own (libmine.so, several with commas): docs/library.md")
      ->group(group);
  sub.add_flag("--no-graph", o.no_graph,
               "cuda, emulated: launch every kernel of a training step instead of replaying a recorded step")
      ->group(group);
  sub.add_option("--threads", o.threads, "CPU threads (0: all cores)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024))
      ->group(group);
}

void add_config_option(CLI::App& sub, std::string& path) {
  sub.add_option("--config", path, "Read flags from this TOML file; flags on the command line win")
      ->group("Configuration");
}

void apply_config(CLI::App& sub, const std::string& path) {
  if (path.empty()) return;
  apply_config_text(sub, read_file(path), cat("--config ", path));
}

void apply_config_text(CLI::App& sub, std::string_view source_text, const std::string& source) {
  toml::table table;
  try {
    table = toml::parse(source_text);
  } catch (const toml::parse_error& e) {
    fail(Kind::format, cat(source, ":", e.source().begin.line, ": ", e.description()));
  }
  for (const auto& [key, node] : table) {
    std::string name(key.str());
    if (is_record(name)) continue;
    CLI::Option* const option = sub.get_option_no_throw("--" + name);
    check(option != nullptr && name != "config", Kind::usage,
          [&] { return cat(source, ": '", name, "' is not a flag of 'evergrad ", sub.get_name(), "'"); });
    if (option->count() > 0) continue;
    const auto text = [&](const toml::node& value) {
      if (const auto* s = value.as_string()) return s->get();
      std::ostringstream out;
      value.visit([&](const auto& v) {
        if constexpr (toml::is_value<decltype(v)>) out << std::setprecision(17) << std::boolalpha << v.get();
      });
      return out.str();
    };
    std::string joined;
    if (const auto* array = node.as_array()) {
      for (const toml::node& element : *array) joined += (joined.empty() ? "" : ",") + text(element);
    } else {
      joined = text(node);
    }
    if (joined.empty() && node.is_string()) continue;  // an empty text means: not given
    try {
      option->add_result(joined);
      option->run_callback();
    } catch (const CLI::Error& e) { fail(Kind::usage, cat(source, ": ", name, " = ", joined, ": ", e.what())); }
  }
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    // "arrow:blocks=0,3,adamw": a part that starts with a digit continues the option list before it.
    // "arrow:blocks=last:4,window=8": so does one that is an option itself.
    const bool number = !part.empty() && part[0] >= '0' && part[0] <= '9';
    const bool option = part.find('=') != std::string::npos && part.find('=') < part.find(':');
    const bool continues = (number || option) && !parts.empty() && parts.back().find('=') != std::string::npos;
    if (continues)
      parts.back() += "," + part;
    else
      parts.push_back(part);
  }
  return parts;
}

std::vector<std::uint64_t> parse_seeds(const std::string& text) {
  std::vector<std::uint64_t> seeds;
  std::istringstream in(text);
  const auto number = [&](std::string_view part) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    check(error == std::errc{} && end == part.data() + part.size(), Kind::usage,
          [&] { return cat("--seeds '", text, "': '", part, "' is not a whole number; write 1,2,3 or 1-5"); });
    return value;
  };
  for (std::string part; std::getline(in, part, ',');) {
    const std::size_t dash = part.find('-');
    const std::uint64_t first = number(std::string_view(part).substr(0, dash));
    const std::uint64_t last = dash == std::string::npos ? first : number(std::string_view(part).substr(dash + 1));
    check(first <= last && last - first < 10000, Kind::usage,
          [&] { return cat("--seeds '", text, "': the range '", part, "' is empty or too long"); });
    for (std::uint64_t s = first; s <= last; ++s) seeds.push_back(s);
  }
  check(!seeds.empty(), Kind::usage, [] { return std::string("--seeds is empty; write for example --seeds 1,2,3"); });
  return seeds;
}

}  // namespace eg
