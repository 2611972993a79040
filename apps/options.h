// apps/options.h - the flags that several subcommands share, with their defaults, ranges and help.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace eg {

/// The network. Zero (or an empty text) means: what the preset says.
struct ModelOptions {
  std::string model = "vit-ti";
  int image_size = 32, patch = 4, dim = 0, depth = 0, heads = 0, channels = 3;
  double mlp_ratio = 4.0;
  std::string pool = "token", pos = "learned", gelu = "erf";
  bool qk_norm = false, recompute = false;
  double layer_scale = 0.0, drop_path = 0.0;
  int registers = 0;
  double norm_eps = 1e-6;
  bool norm_first = false;
  std::string init;                 // file with the weights to start from; empty: drawn by seed
  std::vector<std::string> freeze;  // patterns of parameter names
};

/// The images, and how they are augmented.
struct DataOptions {
  std::string stream = "procedural", data;
  std::string corrupt = "fail";  // what a corrupt image file does: fail | skip
  double test_share = 0.2;       // of every class of a folder that has no test/ or val/
  std::string augment = "crop-flip";
  int randaugment = 0;
  double mixup = 0.0, cutmix = 0.0;
  int workers = 1;
};

/// How one task (or one ordinary training) is learned.
struct TrainingOptions {
  int epochs = 10, batch = 64, accumulate = 1;
  double lr = -1.0, weight_decay = -1.0, clip_norm = 1.0, smoothing = 0.0, ema = 0.0;
  std::string schedule = "constant";
  int warmup_steps = 0;
  std::int64_t train_limit = 0, test_limit = 0;
};

/// Where it runs.
struct MachineOptions {
  std::string device = "cpu", precision = "auto", kernels = "auto", plugin;
  int threads = 0;
  bool no_graph = false, deterministic = false;
  int zero = 0;  // stage of sharding
  std::string reduce = "auto";
};

/// A finite number of [low, high]. CLI::Range would let nan pass, since no comparison with it is true.
CLI::Validator number_in(double low, double high);

void add_model_options(CLI::App& sub, ModelOptions& o);
/// --init and --freeze, for commands that train.
void add_start_options(CLI::App& sub, ModelOptions& o);
void add_data_options(CLI::App& sub, DataOptions& o);
void add_training_options(CLI::App& sub, TrainingOptions& o);
void add_machine_options(CLI::App& sub, MachineOptions& o);

/// Adds --config FILE. apply_config gives every flag that the file names and the command line does not its value from
/// there; keys are flag names without dashes. Throws Error naming file and key.
void add_config_option(CLI::App& sub, std::string& path);
void apply_config(CLI::App& sub, const std::string& path);

/// The same from text; `source` is what messages call it. Flags that were already given, here or on the command line, win.
void apply_config_text(CLI::App& sub, std::string_view text, const std::string& source);

/// "1,2,5-8" as numbers. Throws Error{usage}.
std::vector<std::uint64_t> parse_seeds(const std::string& text);
/// Splits at commas that do not stand inside a method's option ("arrow:blocks=0,3" keeps its list when a part has no
/// method name in front).
std::vector<std::string> split_list(const std::string& text);

}  // namespace eg
