// apps/commands/train.cpp - `evergrad train` and `evergrad eval`: ordinary supervised learning on one data set.
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/run/checkpoint.h"
#include "apps/run/progress.h"
#include "apps/run/run_folder.h"
#include "apps/run/signals.h"
#include "apps/run/table.h"
#include "apps/setup.h"
#include "apps/trainer.h"
#include "engine/log.h"
#include "engine/parallel.h"
#include "optim/schedule.h"

namespace eg {
namespace {

using Clock = std::chrono::steady_clock;

struct TrainOptions {
  ModelOptions model;
  DataOptions data;
  TrainingOptions training;
  MachineOptions machine;
  std::string method = "adamw", out = "runs/train", checkpoint;
  std::uint64_t seed = 1;
  int classes = 0;
  bool resume = false;
  double checkpoint_seconds = 60.0;
};

TrainerConfig trainer_config(const TrainOptions& o, const ResolvedMachine& m, const Dataset& data, const Task& task) {
  TrainerConfig c;
  c.vit = vit_of(o.model, task.head_classes, m.activation);
  c.device = m.device;
  c.method = parse_method(o.method);
  c.lr = o.training.lr, c.weight_decay = o.training.weight_decay, c.clip_norm = o.training.clip_norm;
  c.smoothing = o.training.smoothing, c.ema = o.training.ema, c.accumulate = o.training.accumulate, c.seed = o.seed;
  const ChannelStats s = channel_stats(data, task.train, {o.model.channels, o.model.image_size});
  c.mean = s.mean, c.stddev = s.stddev;
  return c;
}

Config resolved(const TrainOptions& o, const ResolvedMachine& m) {
  Config c;
  c.set("stream", o.data.stream), c.set("data", o.data.data), c.set("classes", o.classes), c.set("method", o.method);
  c.set("seed", std::int64_t(o.seed)), c.set("checkpoint-seconds", o.checkpoint_seconds);
  write_shared(c, o.data, o.training, o.model, m);
  return c;
}

struct Position {
  std::int64_t epoch = 0, batch = 0, images = 0;
  double loss_sum = 0.0, seconds = 0.0;
  std::int64_t correct = 0, seen = 0;
};

int train(const TrainOptions& o) {
  const ResolvedMachine machine = resolve_machine(o.machine);
  const std::shared_ptr<const Dataset> data = open_data(o.data);
  const Task task = whole_dataset(*data, o.classes, o.training.train_limit, o.training.test_limit, 0.0, o.seed);
  const Config config = resolved(o, machine);
  RunFolder folder = RunFolder::open(o.out, o.resume);
  if (folder.continues())
    check_same_config(Config::read(folder.config()), config, folder.path(), {"checkpoint-seconds", "workers"});
  else
    config.write(folder.config());
  Checkpoints checkpoints(folder.checkpoints());
  Trainer trainer(trainer_config(o, machine, *data, task));

  Position at;
  std::vector<std::string> notes;
  const std::optional<Checkpoint> resumed = checkpoints.load_latest(&notes);
  for (const std::string& n : notes) std::cerr << "evergrad: " << n << '\n';
  std::uint64_t log_bytes = 0;
  std::int64_t saves = 0;
  std::vector<double> test_accuracy;
  if (resumed) {
    resumed->restore(trainer.state());
    trainer.restored();
    const auto& s = resumed->state;
    at = {s.at("epoch"),   s.at("batch"),   s.at("images"), s.at("loss_sum"),
          s.at("seconds"), s.at("correct"), s.at("seen")};
    log_bytes = s.at("log_bytes");
    saves = resumed->step;
    test_accuracy = s.at("test_accuracy").get<std::vector<double>>();
  }
  JsonLog log(folder.metrics(), log_bytes);
  Progress progress = Progress::standard();
  if (!resumed) progress.note(trainer.describe());
  const auto save = [&] {
    log.sync();
    const std::vector<NamedTensor> tensors = trainer.state();
    checkpoints.save(++saves, tensors,
                     {{"epoch", at.epoch},
                      {"batch", at.batch},
                      {"images", at.images},
                      {"loss_sum", at.loss_sum},
                      {"seconds", at.seconds},
                      {"correct", at.correct},
                      {"seen", at.seen},
                      {"log_bytes", log.bytes()},
                      {"test_accuracy", test_accuracy},
                      {"classes", task.head_classes}});
  };
  LoaderConfig lc = base_loader(o.data, o.model, o.training.batch, task.head_classes, true);
  lc.seed = o.seed, lc.epochs = o.training.epochs;
  Loader loader(data, task.train, task.transform, lc);
  loader.seek(at.epoch, at.batch);
  catch_stop_signals();
  auto last = Clock::now(), last_save = last;
  const std::int64_t per_epoch = loader.batches_per_epoch(), steps = per_epoch * o.training.epochs;
  try {
    for (; at.epoch < o.training.epochs; ++at.epoch, at.batch = 0, at.loss_sum = 0.0, at.correct = at.seen = 0) {
      while (const Batch* batch = loader.next()) {
        const double factor = schedule_factor(parse_schedule(o.training.schedule), at.epoch * per_epoch + at.batch,
                                              steps, o.training.warmup_steps);
        const StepResult r = trainer.step(*batch, factor);
        at.loss_sum += r.loss * double(r.count), at.correct += r.correct, at.seen += r.count, at.images += r.count,
            ++at.batch;
        const auto now = Clock::now();
        at.seconds += std::chrono::duration<double>(now - last).count(), last = now;
        progress.update({.what = o.method,
                         .epoch = at.epoch + 1,
                         .epochs = o.training.epochs,
                         .loss = at.loss_sum / double(at.seen),
                         .accuracy = double(at.correct) / double(at.seen),
                         .images_per_second = double(at.images) / at.seconds,
                         .done = double(at.epoch * per_epoch + at.batch) / double(steps)});
        const bool stop = stop_signal() != 0;
        if (stop || std::chrono::duration<double>(now - last_save).count() >= o.checkpoint_seconds)
          save(), last_save = Clock::now();
        if (stop) {
          progress.clear();
          std::cout << "Stopped by a signal and saved; continue with the same command and --resume.\n";
          return stop_exit_code();
        }
        last = Clock::now();
      }
      LoaderConfig test = base_loader(o.data, o.model, o.training.batch, task.head_classes, false);
      test.epochs = 1;
      Loader test_loader(data, task.test, task.transform, test);
      const Evaluation e = trainer.evaluate(test_loader);
      test_accuracy.push_back(e.accuracy);
      log.write(LogLine("epoch")
                    .add("epoch", at.epoch + 1)
                    .add("train_loss", at.loss_sum / double(std::max<std::int64_t>(1, at.seen)))
                    .add("train_accuracy", double(at.correct) / double(std::max<std::int64_t>(1, at.seen)))
                    .add("test_loss", e.loss)
                    .add("test_accuracy", e.accuracy));
      progress.note(cat("epoch ", at.epoch + 1, "/", o.training.epochs, ": train loss ",
                        fixed(at.loss_sum / double(std::max<std::int64_t>(1, at.seen)), 3), ", test accuracy ",
                        fixed(100 * e.accuracy, 2), "%"));
      last = Clock::now();
    }
  } catch (const Diverged& e) {
    progress.clear();
    std::cerr << "evergrad: diverged: " << e.what() << '\n';
    write_json(folder.summary(), {{"finished", true}, {"diverged", true}, {"why", e.what()}});
    return 1;
  }
  save();
  progress.clear();
  const double final_accuracy = test_accuracy.empty() ? 0.0 : test_accuracy.back();
  write_json(folder.summary(), {{"finished", true},
                                {"diverged", false},
                                {"test_accuracy", final_accuracy},
                                {"epochs", test_accuracy},
                                {"images_per_second", at.seconds > 0 ? double(at.images) / at.seconds : 0.0},
                                {"data_wait_seconds", loader.wait_seconds()}});
  std::cout << "test accuracy " << fixed(100 * final_accuracy, 2) << "%, "
            << fixed(at.seconds > 0 ? double(at.images) / at.seconds : 0.0, 0) << " images/s; run folder "
            << folder.path().string() << '\n';
  return 0;
}

int evaluate(const TrainOptions& o) {
  const ResolvedMachine machine = resolve_machine(o.machine);
  const std::shared_ptr<const Dataset> data = open_data(o.data);
  const Checkpoint checkpoint = open_checkpoint(o.checkpoint);
  const Task task = whole_dataset(*data, o.classes, o.training.train_limit, o.training.test_limit, 0.0, o.seed);
  Trainer trainer(trainer_config(o, machine, *data, task));
  const SafetensorsEntry* weights = checkpoint.tensors.find("weights");
  check(weights != nullptr, Kind::format,
        [&] { return cat(o.checkpoint, " holds no tensor 'weights'; give a checkpoint that evergrad train wrote"); });
  checkpoint.tensors.load_into(*weights, trainer.arena().master);
  trainer.arena().refresh_work();
  LoaderConfig lc = base_loader(o.data, o.model, o.training.batch, task.head_classes, false);
  lc.epochs = 1;
  Loader loader(data, task.test, task.transform, lc);
  const Evaluation e = trainer.evaluate(loader);
  std::cout << "test accuracy " << fixed(100 * e.accuracy, 2) << "%, loss " << fixed(e.loss, 4) << ", " << e.count
            << " images\n";
  return 0;
}

void add_common(CLI::App* sub, TrainOptions& o, std::string& config) {
  sub->add_option("--classes", o.classes, "Use the first so many classes of the data set (0: all; procedural: 10)")
      ->check(CLI::Range(0, 1000000))
      ->group("Data");
  sub->add_option("--seed", o.seed, "Seed of everything random")->capture_default_str()->group("Training");
  sub->add_option("--method", o.method, "Update rule, name[:key=value...]")->capture_default_str()->group("Training");
  add_data_options(*sub, o.data);
  add_training_options(*sub, o.training);
  add_model_options(*sub, o.model);
  add_machine_options(*sub, o.machine);
  add_config_option(*sub, config);
}

}  // namespace

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
      ->check(CLI::Range(0.0, 1e6));
  add_common(sub, *o, *config);
  sub->callback([o, config, sub, &run] {
    run = [o, config, sub] {
      apply_config(*sub, *config);
      if (o->data.stream == "procedural" && o->classes == 0) o->classes = 10;
      return train(*o);
    };
  });
}

void add_eval_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<TrainOptions>();
  auto config = std::make_shared<std::string>();
  auto* sub = app.add_subcommand("eval", "Test accuracy of a checkpoint");
  sub->description(
      "Evaluates a checkpoint of evergrad train; give the run's own configuration. Example:\n\n"
      "  evergrad eval --checkpoint runs/cifar100 --config runs/cifar100/config.toml");
  sub->add_option("--checkpoint", o->checkpoint,
                  "A run folder, a checkpoints folder, or one .safetensors or .json file")
      ->required();
  add_common(sub, *o, *config);
  sub->add_option("--checkpoint-seconds", o->checkpoint_seconds, "")
      ->group("");  // a training run's config file names it
  sub->callback([o, config, sub, &run] {
    run = [o, config, sub] {
      apply_config(*sub, *config);
      if (o->data.stream == "procedural" && o->classes == 0) o->classes = 10;
      return evaluate(*o);
    };
  });
}

}  // namespace eg
