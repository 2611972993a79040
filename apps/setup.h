// apps/setup.h - from flags to the objects of a run: machine, data, model, loader; and back into config.toml.
#pragma once
#include <memory>
#include <string>

#include "apps/options.h"
#include "apps/run/config.h"
#include "apps/run/run_folder.h"
#include "data/loader.h"
#include "engine/kernel_choices.h"
#include "layers/vit.h"

namespace eg {

struct ResolvedMachine {
  Device device;
  std::string precision;  // "fp32" or "bf16", never "auto"
  DType activation = DType::f32;
  bool record_steps = true, deterministic = false;
  int ranks = 1;  // processes that share every batch
  int zero = 0;
  bool reduce_bf16 = false;
  KernelMode kernels = KernelMode::hand;  // never automatic where nothing can be measured
  std::string plugin;                     // absolute paths
};

/// Loads the plugins, sets the thread count, checks that the device exists, resolves --precision auto: bf16 where this processor
/// multiplies bf16 matrices faster than fp32 ones. Throws Error{usage|device}.
/// With --threads 0 the ranks of a machine share its cores.
ResolvedMachine resolve_machine(const MachineOptions& o, int ranks = 1);
/// Opens the data set; what that found but tolerated (corrupt images left out) goes to standard error, by name.
std::shared_ptr<const Dataset> open_data(const DataOptions& o);
VitConfig vit_of(const ModelOptions& o, std::int64_t classes, DType activation);
LoaderConfig base_loader(const DataOptions& data, const ModelOptions& model, std::int64_t batch, std::int64_t classes,
                         bool training);
/// Replaces the zeros that mean "the preset's" by the preset's values. Throws Error{usage} for sizes that do not fit.
void resolve_model(ModelOptions& o);

/// In config.toml, beside the flags: what every method does with every number in it, its own default learning rate
/// included. A record, not a flag: reading a configuration back leaves it out, resuming compares it.
constexpr const char* kSettingsKey = "method-settings";
/// In config.toml too, where there are several; a run may go on with another number.
constexpr const char* kRanksKey = "ranks";
/// In config.toml of a run that chooses kernels: "call = kernel" for each choice, and the device that made them
/// (run/kernel_record.h).
constexpr const char *kKernelChoicesKey = "kernel-choices", *kKernelDeviceKey = "kernel-device";
/// In config.toml of a run that starts from --init: a checksum of these weights, which resuming compares.
constexpr const char* kInitKey = "init-checksum";
/// True for the keys above: records of what a run did, not flags.
bool is_record(std::string_view key);
/// Throws Error{usage} that names the first flag, and both its values, in which `now` is not the configuration that the
/// folder's run was started with. What only steers the work and not its results may differ.
void check_resumable(const RunFolder& folder, const Config& now);
void check_resumable(const std::filesystem::path& folder, const Config& now);
/// The config.toml of the run that a checkpoint belongs to, or nothing: beside it, or one or two folders up.
std::string config_of(const std::filesystem::path& checkpoint);
/// Every shared flag under its own name.
void write_shared(Config& c, const DataOptions& d, const TrainingOptions& t, const ModelOptions& m,
                  const ResolvedMachine& machine);

}  // namespace eg
