// apps/commands/diagnose.cpp - `evergrad diagnose`: everything that a network's weights say about its plasticity.
#include <memory>

#include "apps/command.h"
#include "apps/continual/continual.h"
#include "apps/diagnosis/inspection.h"
#include "apps/run/config.h"
#include "apps/setup.h"
#include "apps/training/training.h"
#include "engine/error.h"

namespace eg {
namespace {

/// The configuration of a run, and over it the flags that `sub` was given; `add` gives the flags that the file may name.
void apply_flags(const CLI::App& sub, const std::string& file, const char* command, MachineOptions& machine,
                 const std::function<void(CLI::App&, std::string&)>& add) {
  CLI::App flags("", command);
  std::string unused;
  add(flags, unused);
  std::vector<std::string> given;  // CLI11 takes them last first
  for (const char* name : {"--device", "--precision", "--threads", "--data"})
    if (sub.get_option(name)->count() > 0)
      given.insert(given.begin(), std::string(name) + "=" + sub.get_option(name)->results().back());
  flags.parse(given);
  apply_config(flags, file);
  // Finite differences of gradients need more digits than bf16 has.
  if (sub.get_option("--precision")->count() == 0) machine.precision = machine.device == "reference" ? "auto" : "fp32";
}

}  // namespace

void add_diagnose_command(CLI::App& app, std::function<int()>& run) {
  auto checkpoint = std::make_shared<std::string>();
  auto d = std::make_shared<DiagnoseOptions>();
  auto o = std::make_shared<ContinualOptions>();
  auto config = std::make_shared<std::string>();
  auto* sub =
      app.add_subcommand("diagnose", "Look inside a checkpoint: ranks, units, attention, curvature, robustness");
  sub->description(
      "Opens a checkpoint of evergrad continual or evergrad train and measures the network from inside, block by "
      "block\n"
      "and module by module: ranks of features, weights, gradients and head circuits, active and dead units, what\n"
      "attention looks at and how far all of it has moved from the first network of its seed; then the curvature of "
      "the\n"
      "loss, how much accuracy survives noise, pruning and quantisation, what a linear classifier still reads off the\n"
      "features about this and earlier tasks, and which modules hold what the task taught (each is put back to its\n"
      "weights from before it; --relearn: held there while the task is learned again). Computed in fp32 unless "
      "--precision says otherwise.\n"
      "docs/formats.md explains every number. Example:\n\n"
      "  evergrad diagnose runs/first --json diagnosis.json");
  sub->add_option("checkpoint", *checkpoint, "A run folder, a checkpoints folder, or one .safetensors or .json file")
      ->required();
  sub->add_option("--json", d->json, "Also write every number into this file");
  sub->add_option("--images", d->images, "Test images to look at")->capture_default_str()->check(CLI::Range(4, 100000));
  sub->add_flag("--quick", d->quick,
                "Leave out curvature, robustness, linear probes and restored modules, which need some hundred passes");
  sub->add_flag("--relearn", d->relearn,
                "Also learn the task again from its beginning, with cleared moments, while one kind of module or one "
                "block is held fast: which ones learning it needs. Takes 7 + blocks times the task's training");
  sub->add_option("--before", d->before,
                  "A checkpoint of the same run from before the task, whose modules are put back one by one (default: "
                  "what a run with --probe remembers of the task's start)");
  sub->add_option("--config", *config, "The run's config.toml, when it does not lie with the checkpoint");
  add_machine_options(*sub, o->machine);
  sub->add_option("--data", o->data.data, "Folder with the data set's files, when it has moved");
  sub->callback([=, &run] {
    run = [=] {
      const std::string file = config->empty() ? config_of(*checkpoint) : *config;
      check(!file.empty(), Kind::usage, [&] {
        return cat(*checkpoint, " does not belong to a run (no config.toml was found beside it); give --config FILE");
      });
      if (Config::read(file).find("protocol")) {
        ContinualOptions all;
        apply_flags(*sub, file, "continual", all.machine,
                    [&](CLI::App& flags, std::string& unused) { add_continual_options(flags, all, unused); });
        return diagnose_continual(all, *checkpoint, *d);
      }
      TrainOptions all;
      all.checkpoint = *checkpoint;
      apply_flags(*sub, file, "train", all.machine, [&](CLI::App& flags, std::string& unused) {
        add_train_options(flags, all, unused);
        flags.add_option("--checkpoint-seconds", all.checkpoint_seconds, "");  // a run's config file names it
      });
      return diagnose_training(all, *d);
    };
  });
}

}  // namespace eg
