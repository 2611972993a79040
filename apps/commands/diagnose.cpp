// apps/commands/diagnose.cpp - `evergrad diagnose`: everything that a network's weights say about its plasticity.
#include <memory>

#include "apps/command.h"
#include "apps/continual/continual.h"
#include "apps/run/config.h"
#include "apps/setup.h"
#include "engine/error.h"

namespace eg {

void add_diagnose_command(CLI::App& app, std::function<int()>& run) {
  auto checkpoint = std::make_shared<std::string>();
  auto d = std::make_shared<DiagnoseOptions>();
  auto o = std::make_shared<ContinualOptions>();
  auto config = std::make_shared<std::string>();
  auto* sub =
      app.add_subcommand("diagnose", "Look inside a checkpoint: ranks, units, attention, curvature, robustness");
  sub->description(
      "Opens a checkpoint of evergrad continual and measures the network from inside, block by block and module by\n"
      "module: ranks of features, weights and gradients, active and dead units, what attention looks at and how far "
      "all\n"
      "of it has moved from the first network of its seed; then the largest eigenvalue of the loss's Hessian and how "
      "much\n"
      "accuracy survives noise, pruning and quantisation. Computed in fp32 unless --precision says otherwise.\n"
      "docs/formats.md explains every number. Example:\n\n"
      "  evergrad diagnose runs/first --json diagnosis.json");
  sub->add_option("checkpoint", *checkpoint, "A run folder, a checkpoints folder, or one .safetensors or .json file")
      ->required();
  sub->add_option("--json", d->json, "Also write every number into this file");
  sub->add_option("--images", d->images, "Test images to look at")->capture_default_str()->check(CLI::Range(4, 100000));
  sub->add_flag("--quick", d->quick, "Leave out curvature and robustness, which need some hundred passes");
  sub->add_option("--config", *config, "The run's config.toml, when it does not lie with the checkpoint");
  add_machine_options(*sub, o->machine);
  sub->add_option("--data", o->data.data, "Folder with the data set's files, when it has moved");
  sub->callback([=, &run] {
    run = [=] {
      const std::string file = config->empty() ? config_of(*checkpoint) : *config;
      check(!file.empty() && Config::read(file).find("protocol"), Kind::usage, [&] {
        return cat(*checkpoint,
                   " does not belong to a run of 'evergrad continual' (no config.toml with a protocol was "
                   "found beside it); give --config FILE");
      });
      ContinualOptions all;
      CLI::App flags("", "continual");
      std::string unused;
      add_continual_options(flags, all, unused);
      std::vector<std::string> given;  // CLI11 takes them last first
      for (const char* name : {"--device", "--precision", "--threads", "--data"})
        if (sub->get_option(name)->count() > 0)
          given.insert(given.begin(), std::string(name) + "=" + sub->get_option(name)->results().back());
      flags.parse(given);
      apply_config(flags, file);
      // Finite differences of gradients need more digits than bf16 has.
      if (sub->get_option("--precision")->count() == 0 && all.machine.device != "reference")
        all.machine.precision = "fp32";
      return diagnose_continual(all, *checkpoint, *d);
    };
  });
}

}  // namespace eg
