// apps/training/training.cpp - see training.h.
#include "apps/training/training.h"

#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/diagnosis/inspection.h"
#include "apps/distributed/launch.h"
#include "apps/distributed/rank_files.h"
#include "apps/distributed/rank_times.h"
#include "apps/run/checkpoint.h"
#include "apps/run/kernel_record.h"
#include "apps/run/progress.h"
#include "apps/run/run_folder.h"
#include "apps/run/signals.h"
#include "apps/run/table.h"
#include "apps/setup.h"
#include "apps/trainer.h"
#include "apps/weights/init_flags.h"
#include "engine/log.h"
#include "optim/schedule.h"

namespace eg {
namespace {

using Clock = std::chrono::steady_clock;

TrainerConfig trainer_config(const TrainOptions& o, const ResolvedMachine& m, const Dataset& data, const Task& task,
                             std::vector<std::string>* notes) {
  TrainerConfig c;
  c.vit = vit_of(o.model, task.head_classes, m.activation);
  c.init = initial_weights(o.model, c.vit, notes), c.freeze = o.model.freeze;
  c.device = m.device, c.record_steps = m.record_steps, c.zero = m.zero;
  c.reduce_bf16 = m.reduce_bf16;
  c.method = parse_method(o.method);
  c.lr = o.training.lr, c.weight_decay = o.training.weight_decay, c.clip_norm = o.training.clip_norm;
  c.smoothing = o.training.smoothing, c.ema = o.training.ema, c.accumulate = o.training.accumulate, c.seed = o.seed;
  const ChannelStats s = channel_stats(data, task.train, {o.model.channels, o.model.image_size});
  c.mean = s.mean, c.stddev = s.stddev;
  return c;
}

Config resolved(const TrainOptions& o, const ResolvedMachine& m, std::int64_t classes, const TrainerConfig& trainer) {
  Config c;
  c.set("stream", o.data.stream), c.set("data", o.data.data), c.set("classes", std::int64_t(classes)),
      c.set("method", o.method);
  c.set(kSettingsKey, method_settings(trainer));
  if (trainer.init) c.set(kInitKey, checksum_of(*trainer.init));
  c.set("seed", std::int64_t(o.seed)), c.set("checkpoint-seconds", o.checkpoint_seconds);
  write_shared(c, o.data, o.training, o.model, m);
  return c;
}

struct Position {
  std::int64_t epoch = 0, batch = 0, images = 0;
  double loss_sum = 0.0, seconds = 0.0;
  std::int64_t correct = 0, seen = 0;
  double loss() const { return seen ? loss_sum / double(seen) : 0.0; }
  double accuracy() const { return seen ? double(correct) / double(seen) : 0.0; }
  double images_per_second() const { return seconds > 0 ? double(images) / seconds : 0.0; }
};

/// One training run in its folder. Everything that a resumed one needs is in Position, the trainer and test_accuracy_.
class Training {
 public:
  Training(const TrainOptions& o, std::shared_ptr<Collectives> ranks)
      : o_(o),
        ranks_(std::move(ranks)),
        machine_(resolve_machine(o_.machine, ranks_->size())),
        data_(open_data(o_.data)),
        task_(whole_dataset(*data_, o_.classes, o_.training.train_limit, o_.training.test_limit, 0.0, o_.seed)),
        settings_(shared(trainer_config(o_, machine_, *data_, task_, &init_notes_))),
        config_(resolved(o_, machine_, task_.head_classes, settings_)),
        folder_(open_agreed_folder()),
        progress_(rank_progress(*ranks_)) {
    if (folder_.continues())
      check_resumable(folder_, config_);
    else if (first())
      config_.write(folder_.config());
    kernels_.emplace(folder_.config(), machine_.device, machine_.kernels, *ranks_);
    checkpoints_.emplace(open_checkpoints(folder_, *ranks_));
    keep_records(*ranks_, folder_.path());
    trainer_.emplace(settings_);
  }

  int run() {
    const bool resumed = load();
    if (!resumed) {
      for (const std::string& note : init_notes_) progress_.note(cat(o_.model.init, ": ", note));
      progress_.note(trainer_->describe());
      if (const std::string said = caution(settings_); !said.empty()) progress_.note(said);
    }
    LoaderConfig c = base_loader(o_.data, o_.model, o_.training.batch, task_.head_classes, true);
    c.seed = o_.seed, c.epochs = o_.training.epochs;
    share_batches(c, *ranks_);
    Loader loader(data_, task_.train, task_.transform, c);
    loader.seek(at_.epoch, at_.batch);
    catch_stop_signals();
    RankTimes times(ranks_, folder_.path());
    try {
      while (at_.epoch < o_.training.epochs) {
        times.begin(loader.wait_seconds());
        if (!learn_epoch(loader)) {
          progress_.clear();
          std::cout << "Stopped by a signal and saved; continue with the same command and --resume.\n";
          return stop_code_;
        }
        const std::string slow = times.end(loader.wait_seconds(), LogLine("ranks").add("epoch", at_.epoch + 1));
        if (!slow.empty()) progress_.note(slow);
        test();
        at_.loss_sum = 0.0, at_.correct = at_.seen = at_.batch = 0;
        ++at_.epoch;
      }
    } catch (const Diverged& e) {
      progress_.clear();
      std::cerr << "evergrad: diverged: " << e.what() << '\n';
      if (first()) write_json(folder_.summary(), {{"finished", true}, {"diverged", true}, {"why", e.what()}});
      return 1;
    }
    save();
    return finish(loader.wait_seconds());
  }

 private:
  bool first() const { return ranks_->rank() == 0; }
  RunFolder open_agreed_folder() const {
    check_same_config_on_ranks(config_, *ranks_);
    return open_run_folder(o_.out, o_.resume, *ranks_);
  }
  TrainerConfig shared(TrainerConfig c) const {
    c.ranks = ranks_;
    return c;
  }

  /// Takes the newest good checkpoint, if there is one, and opens the log where it was then.
  bool load() {
    const std::optional<Checkpoint> c = load_latest(*checkpoints_, *ranks_);
    std::uint64_t log_bytes = 0;
    if (c) {
      c->restore(trainer_->state());
      trainer_->restored();
      const auto& s = c->state;
      at_ = {s.at("epoch"),   s.at("batch"),   s.at("images"), s.at("loss_sum"),
             s.at("seconds"), s.at("correct"), s.at("seen")};
      test_accuracy_ = s.at("test_accuracy").get<std::vector<double>>();
      log_bytes = s.at("log_bytes");
      saves_ = c->step;
    }
    log_.emplace(open_log(folder_, log_bytes, *ranks_));
    return c.has_value();
  }

  void save() {
    last_save_ = Clock::now();
    say_busy(*ranks_, "saving a checkpoint");
    save_checkpoint(*checkpoints_, *ranks_, ++saves_, trainer_->state(), [&] {
      log_->sync();
      return nlohmann::json{
          {"epoch", at_.epoch},       {"batch", at_.batch},         {"images", at_.images},
          {"loss_sum", at_.loss_sum}, {"seconds", at_.seconds},     {"correct", at_.correct},
          {"seen", at_.seen},         {"log_bytes", log_->bytes()}, {"test_accuracy", test_accuracy_}};
    });
    last_save_ = Clock::now();
  }

  /// The rest of the present epoch. False: a signal asked to stop, and everything was saved.
  bool learn_epoch(Loader& loader) {
    const std::int64_t per_epoch = loader.batches_per_epoch(), steps = per_epoch * o_.training.epochs;
    const Schedule schedule = parse_schedule(o_.training.schedule);
    auto last = Clock::now();
    while (const Batch* batch = loader.next()) {
      const std::int64_t step = at_.epoch * per_epoch + at_.batch;
      const StepResult r = trainer_->step(*batch, schedule_factor(schedule, step, steps, o_.training.warmup_steps), {},
                                          [&] { return loader.ahead(); });
      say_step(*ranks_);
      show_kernels();
      at_.loss_sum += r.loss * double(r.count), at_.correct += r.correct;
      at_.seen += r.count, at_.images += r.count, ++at_.batch;
      at_.seconds += std::chrono::duration<double>(Clock::now() - last).count();
      progress_.update({.what = o_.method,
                        .epoch = at_.epoch + 1,
                        .epochs = o_.training.epochs,
                        .loss = at_.loss(),
                        .accuracy = at_.accuracy(),
                        .images_per_second = at_.images_per_second(),
                        .done = double(step + 1) / double(steps)});
      const Pause pause = agree_on_pause(
          *ranks_, std::chrono::duration<double>(Clock::now() - last_save_).count() >= o_.checkpoint_seconds);
      if (pause.save) save();
      if ((stop_code_ = pause.exit_code) != 0) return false;
      last = Clock::now();
    }
    return true;
  }

  void show_kernels() {
    if (const std::string news = kernels_->news(); !news.empty()) progress_.note(news);
  }

  void test() {
    say_busy(*ranks_, "testing");
    trainer_->check_ranks_agree();
    LoaderConfig c = base_loader(o_.data, o_.model, o_.training.batch, task_.head_classes, false);
    c.epochs = 1;
    share_batches(c, *ranks_);
    Loader loader(data_, task_.test, task_.transform, c);
    const Evaluation e = trainer_->evaluate(loader);
    show_kernels();
    test_accuracy_.push_back(e.accuracy);
    log_->write(LogLine("epoch")
                    .add("epoch", at_.epoch + 1)
                    .add("train_loss", at_.loss())
                    .add("train_accuracy", at_.accuracy())
                    .add("test_loss", e.loss)
                    .add("test_accuracy", e.accuracy));
    progress_.note(cat("epoch ", at_.epoch + 1, "/", o_.training.epochs, ": train loss ", fixed(at_.loss(), 3),
                       ", test accuracy ", fixed(100 * e.accuracy, 2), "%"));
  }

  int finish(double wait_seconds) {
    progress_.clear();
    if (!first()) return 0;
    write_json(folder_.summary(), {{"finished", true},
                                   {"diverged", false},
                                   {"test_accuracy", test_accuracy_.back()},
                                   {"epochs", test_accuracy_},
                                   {"images_per_second", at_.images_per_second()},
                                   {"data_wait_seconds", wait_seconds}});
    std::cout << "test accuracy " << fixed(100 * test_accuracy_.back(), 2) << "%, " << fixed(at_.images_per_second(), 0)
              << " images/s; run folder " << folder_.path().string() << '\n';
    return 0;
  }

  const TrainOptions o_;
  const std::shared_ptr<Collectives> ranks_;
  const ResolvedMachine machine_;
  const std::shared_ptr<const Dataset> data_;
  const Task task_;
  std::vector<std::string> init_notes_;
  const TrainerConfig settings_;
  const Config config_;
  RunFolder folder_;
  std::optional<KernelRecord> kernels_;
  std::optional<Checkpoints> checkpoints_;
  std::optional<Trainer> trainer_;
  std::optional<JsonLog> log_;
  Progress progress_;
  Position at_;
  std::vector<double> test_accuracy_;  // after each epoch
  std::int64_t saves_ = 0;
  int stop_code_ = 0;  // what a signal made of the exit code
  Clock::time_point last_save_ = Clock::now();
};

/// What means "the default" replaced by what it becomes.
TrainOptions prepared(TrainOptions o) {
  if (o.data.stream == "procedural" && o.classes == 0) o.classes = 10;
  resolve_model(o.model);
  return o;
}

/// A checkpoint holds all weights, whatever its run began with; a weights file is what such a run begins with.
TrainOptions of_checkpoint(TrainOptions o) {
  o.model.init = is_weights_file(o.checkpoint) ? o.checkpoint : "";
  return o;
}

/// For a network that only answers: what was averaged in training is loaded as the weights themselves.
TrainerConfig without_average(TrainerConfig c) {
  c.ema = 0.0;
  return c;
}

}  // namespace

int run_training(TrainOptions given) {
  TrainOptions options = prepared(std::move(given));
  const std::shared_ptr<Collectives> ranks =
      connect_ranks(options.ranks, &options.machine.device, options.machine.deterministic);
  return run_as_rank(*ranks, [&] { return Training(options, ranks).run(); });
}

OpenedTraining::OpenedTraining(TrainOptions o)
    : options(of_checkpoint(prepared(std::move(o)))),
      machine(resolve_machine(options.machine)),
      data(open_data(options.data)),
      task(whole_dataset(*data, options.classes, options.training.train_limit, options.training.test_limit, 0.0,
                         options.seed)),
      trainer(without_average(trainer_config(options, machine, *data, task, nullptr))) {
  if (is_weights_file(options.checkpoint)) {
    check(trainer.model().head.weight.imported, Kind::usage, [&] {
      return cat(options.checkpoint, " has no head for ", task.head_classes,
                 " classes, and a random one would guess; give the data set that it was trained on, or train a head "
                 "with evergrad train --init");
    });
  } else {
    const Checkpoint checkpoint = open_checkpoint(options.checkpoint);
    const SafetensorsEntry* weights = checkpoint.tensors.find("ema");
    if (!weights) weights = checkpoint.tensors.find("weights");
    check(weights != nullptr, Kind::format, [&] {
      return cat(options.checkpoint, " holds no tensor 'weights'; give a checkpoint that evergrad train wrote");
    });
    checkpoint.tensors.load_into(*weights, trainer.arena().master);
  }
  trainer.arena().refresh_work();
}

int evaluate_training(TrainOptions options) {
  OpenedTraining run(std::move(options));
  LoaderConfig lc =
      base_loader(run.options.data, run.options.model, run.options.training.batch, run.task.head_classes, false);
  lc.epochs = 1;
  Loader loader(run.data, run.task.test, run.task.transform, lc);
  const Evaluation e = run.trainer.evaluate(loader);
  std::cout << "test accuracy " << fixed(100 * e.accuracy, 2) << "%, loss " << fixed(e.loss, 4) << ", " << e.count
            << " images\n";
  return 0;
}

int diagnose_training(TrainOptions given, const DiagnoseOptions& d) {
  const TrainOptions o = of_checkpoint(prepared(std::move(given)));
  const ResolvedMachine machine = resolve_machine(o.machine);
  const std::shared_ptr<const Dataset> data = open_data(o.data);
  const Checkpoint checkpoint = open_checkpoint(o.checkpoint);
  const Task task = whole_dataset(*data, o.classes, o.training.train_limit, o.training.test_limit, 0.0, o.seed);
  Trainer trainer(trainer_config(o, machine, *data, task, nullptr));
  const auto loader = [&](const SampleSet& samples, bool training) {
    LoaderConfig c = base_loader(o.data, o.model, o.training.batch, task.head_classes, training);
    c.seed = o.seed, c.epochs = training ? 0 : 1;
    return std::make_unique<Loader>(data, samples, task.transform, c);
  };
  const SampleSet images = thinned(task.test, d.images), probed = thinned(task.train, 4 * std::int64_t(d.images));
  Subject subject{.trainer = trainer,
                  .method = o.method,
                  .heading = cat(o.method, ", seed ", o.seed, ", ", task.name),
                  .images = images.size(),
                  .restore = [&] { checkpoint.restore(trainer.state()), trainer.restored(); },
                  .test = [&] { return loader(images, false); },
                  .training = [&] { return loader(task.train, true); },
                  .mask = {},
                  .test_mask = {},
                  .chance = 1.0 / double(task.head_classes),
                  .before = {},
                  .probed = {}};
  if (!d.before.empty()) {
    const Checkpoint other = open_checkpoint(d.before);
    subject.before = other.tensors.load("weights", kCpu).to_host();
  }
  if (!d.quick)
    subject.probed.push_back(
        {1, task.name, [&] { return loader(probed, false); }, [&] { return loader(images, false); }});
  inspect(subject, d);
  return 0;
}

}  // namespace eg
