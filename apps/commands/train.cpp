// apps/commands/train.cpp - `evergrad train`: flags and help.
#include <memory>

#include "apps/command.h"
#include "apps/training/training.h"
#include "apps/weights/init_flags.h"

namespace eg {

void add_train_options(CLI::App& sub, TrainOptions& o, std::string& config) {
  sub.add_option("--classes", o.classes, "Use the first so many classes of the data set (0: all; procedural: 10)")
      ->check(CLI::Range(0, 1000000))
      ->group("Data");
  sub.add_option("--seed", o.seed, "Seed of everything random")
      ->capture_default_str()
      ->check(CLI::Range(std::uint64_t(0), (std::uint64_t(1) << 63) - 1))
      ->group("Training");
  sub.add_option("--method", o.method, "Update rule, name[:key=value...]")->capture_default_str()->group("Training");
  add_data_options(sub, o.data);
  add_training_options(sub, o.training);
  add_model_options(sub, o.model), add_start_options(sub, o.model);
  add_machine_options(sub, o.machine);
  add_config_option(sub, config);
}

void add_train_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<TrainOptions>();
  auto config = std::make_shared<std::string>();
  auto* sub = app.add_subcommand("train", "Ordinary supervised training on one data set");
  sub->description(
      "Trains on the whole training set and reports test accuracy after every epoch. Example:\n\n"
      "  evergrad train --stream cifar100 --data DIR --epochs 10 --dim 192 --depth 6 --out runs/cifar100");
  sub->add_option("--out", o->out, "Run folder")->capture_default_str();
  sub->add_flag("--resume", o->resume, "Continue the run in --out from its last checkpoint");
  sub->add_option("--checkpoint-seconds", o->checkpoint_seconds,
                  "At most this much work is lost when the run is killed")
      ->capture_default_str()
      ->check(number_in(0.0, 1e6));
  add_train_options(*sub, *o, *config);
  add_rank_options(*sub, o->ranks, true);
  sub->callback([o, config, sub, &run] {
    run = [o, config, sub] {
      apply_config(*sub, *config);
      apply_init(*sub, o->model);
      o->ranks.config = shared_flags(*sub);
      return run_training(*o);
    };
  });
}

}  // namespace eg
