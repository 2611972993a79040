// apps/commands/eval.cpp - `evergrad eval`: test accuracy of a checkpoint, with the configuration of its run.
#include <filesystem>
#include <memory>

#include "apps/command.h"
#include "apps/continual/continual.h"
#include "apps/run/config.h"
#include "apps/setup.h"
#include "apps/training/training.h"
#include "apps/weights/init_flags.h"
#include "engine/error.h"

namespace eg {
namespace {

/// The configuration of a continual run: its config.toml, and over it the flags that `sub` was given.
ContinualOptions continual_options(const CLI::App& sub, const std::string& config) {
  ContinualOptions o;
  CLI::App flags("", sub.get_name());
  std::string unused;
  add_continual_options(flags, o, unused);
  std::vector<std::string> given;  // CLI11 takes them last first
  for (const CLI::Option* option : sub.get_options([](const CLI::Option* x) { return x->count() > 0; })) {
    const std::string name = "--" + option->get_lnames().at(0);
    if (name == "--checkpoint" || name == "--config") continue;
    check(flags.get_option_no_throw(name) != nullptr, Kind::usage, [&] {
      return cat(name, " does not go with a checkpoint of 'evergrad continual'; give --device, --threads, --data or ",
                 "another flag of 'evergrad continual'");
    });
    for (const std::string& value : option->results()) given.insert(given.begin(), name + "=" + value);
  }
  flags.parse(given);
  apply_config(flags, config);
  o.model.init.clear();  // the checkpoint holds all weights
  return o;
}

}  // namespace

void add_eval_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<TrainOptions>();
  auto config = std::make_shared<std::string>();
  auto* sub = app.add_subcommand("eval", "Test accuracy of a checkpoint");
  sub->description(
      "Evaluates a checkpoint of evergrad train or evergrad continual with the configuration of its run: the\n"
      "config.toml of its folder, or --config. Flags change it, for example the device or the data. Of a\n"
      "continual run it tests the task in hand, and every earlier one that the network still has a head for.\n"
      "A file of evergrad import is tested on the data set that the flags name.\n"
      "Example:\n\n"
      "  evergrad eval --checkpoint runs/cifar100 --data DIR");
  sub->add_option("--checkpoint", o->checkpoint,
                  "A run folder, a checkpoints folder, or one .safetensors or .json file")
      ->required();
  add_train_options(*sub, *o, *config);
  sub->add_option("--checkpoint-seconds", o->checkpoint_seconds, "")
      ->group("");  // a training run's config file names it
  sub->callback([o, config, sub, &run] {
    run = [o, config, sub] {
      const bool weights = is_weights_file(o->checkpoint);
      const std::string file = !config->empty() || weights ? *config : config_of(o->checkpoint);
      if (!file.empty() && Config::read(file).find("protocol"))
        return evaluate_continual(continual_options(*sub, file), o->checkpoint);
      apply_config(*sub, file);
      o->model.init = weights ? o->checkpoint : "";
      apply_init(*sub, o->model);
      return evaluate_training(*o);
    };
  });
}

}  // namespace eg
