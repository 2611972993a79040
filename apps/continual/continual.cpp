// apps/continual/continual.cpp - the loop over methods, seeds and tasks, and what makes it survive being killed.
//
// A run is a sequence of (method, seed) pairs, each a sequence of tasks, each a sequence of updates. The position in
// that sequence, the results so far and every tensor of the current pair are in a checkpoint; everything else is a pure
// function of the configuration, so a resumed run gives the same numbers, bit for bit.
#include "apps/continual/continual.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "apps/continual/evaluate.h"
#include "apps/continual/farm.h"
#include "apps/continual/measures.h"
#include "apps/continual/plan.h"
#include "apps/continual/position.h"
#include "apps/continual/summary.h"
#include "apps/diagnosis/diagnosis.h"
#include "apps/distributed/launch.h"
#include "apps/distributed/rank_files.h"
#include "apps/distributed/rank_times.h"
#include "apps/run/checkpoint.h"
#include "apps/run/kernel_record.h"
#include "apps/run/progress.h"
#include "apps/run/run_folder.h"
#include "apps/run/signals.h"
#include "apps/run/table.h"
#include "data/preview.h"
#include "engine/log.h"
#include "engine/parallel.h"
#include "optim/schedule.h"

namespace eg {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Images of the first task, on which attention and features are compared over the whole stream.
constexpr std::int64_t kFixedImages = 64;

std::string base64(const std::string& bytes) {
  constexpr const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t word = 0;
    for (std::size_t j = 0; j < 3; ++j) word = word << 8 | (i + j < bytes.size() ? std::uint8_t(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j) out += i + j > bytes.size() ? '=' : digits[word >> (18 - 6 * j) & 63u];
  }
  return out;
}

/// Raised inside the loops when a signal asked to stop; everything was saved.
struct Stopped {
  int exit_code;
};

class Benchmark {
 public:
  Benchmark(const ContinualOptions& options, std::shared_ptr<Collectives> ranks)
      : ranks_(std::move(ranks)),
        plan_(options, ranks_->size()),
        o_(plan_.options()),
        pairs_(plan_.pairs()),
        stream_(plan_.stream(pairs_[0].seed)) {}

  int run() {
    const Config config = plan_.config();
    check_same_config_on_ranks(config, *ranks_);
    RunFolder folder = open_run_folder(o_.out, o_.resume, *ranks_);
    if (folder.continues())
      check_resumable(folder, config);
    else if (first())
      config.write(folder.config());
    folder_ = &folder;
    kernels_.emplace(folder.config(), plan_.machine().device, plan_.machine().kernels, *ranks_);
    Checkpoints checkpoints = open_checkpoints(folder, *ranks_);
    checkpoints_ = &checkpoints;
    keep_records(*ranks_, folder.path());
    Progress progress = rank_progress(*ranks_);
    progress_ = &progress;
    std::optional<Checkpoint> resumed = load(checkpoints);
    JsonLog log = open_log(folder, resumed ? resumed->state.at("log_bytes").get<std::uint64_t>() : 0, *ranks_);
    log_ = &log;
    if (!resumed) announce();
    catch_stop_signals();
    times_.emplace(ranks_, folder.path());
    try {
      for (; at_.run < pairs_.size(); next_pair()) run_pair(resumed ? &*resumed : nullptr), resumed.reset();
    } catch (const Stopped& stopped) {
      progress.clear();
      std::cout << "Stopped by a signal and saved; continue with the same command and --resume.\n";
      return stopped.exit_code;
    }
    progress.clear();
    return finish();
  }

 private:
  bool first() const { return ranks_->rank() == 0; }

  std::optional<Checkpoint> load(const Checkpoints& checkpoints) {
    std::optional<Checkpoint> c = load_latest(checkpoints, *ranks_);
    if (!c) return c;
    for (const auto& r : c->state.at("results")) results_.push_back(result_from_json(r));
    at_ = position_from_json(c->state.at("position"));
    current_ = result_from_json(c->state.at("current"));
    saves_ = c->step;
    return c;
  }

  void announce() {
    progress_->note(stream_->describe());
    for (const std::string& note : plan_.init_notes()) progress_->note(cat(o_.model.init, ": ", note));
    std::string model;
    for (std::size_t i = 0; i < plan_.methods().size(); ++i) {
      const TrainerConfig trainer = plan_.trainer({plan_.methods()[i], pairs_[0].seed}, *stream_);
      const std::string now = model_of(trainer).describe();  // a method may change the network
      if (std::exchange(model, now) != now) progress_->note(now);
      progress_->note(cat(plan_.methods()[i], ": ", plan_.settings()[i]));
      if (const std::string said = caution(trainer); !said.empty()) progress_->note(said);
    }
    progress_->note(cat(pairs_.size(), pairs_.size() == 1 ? " run" : " runs", " (method x seed) on ",
                        plan_.machine().device, ", ", plan_.machine().precision, ", ", num_threads(),
                        " threads; run folder ", o_.out));
  }

  void save(Trainer* trainer) {
    last_save_ = Clock::now();
    say_busy(*ranks_, "saving a checkpoint");
    const std::vector<StateTensor> tensors = trainer ? all_state(*trainer) : std::vector<StateTensor>{};
    save_checkpoint(*checkpoints_, *ranks_, ++saves_, tensors, [&] {
      log_->sync();
      nlohmann::json results = nlohmann::json::array();
      for (const RunResult& r : results_) results.push_back(eg::to_json(r));
      return nlohmann::json{{"position", to_json(at_)},
                            {"results", results},
                            {"current", eg::to_json(current_)},
                            {"log_bytes", log_->bytes()}};
    });
    last_save_ = Clock::now();
  }

  std::vector<StateTensor> all_state(Trainer& trainer) {
    std::vector<StateTensor> all = trainer.state();
    if (probe_)
      for (const NamedTensor& t : probe_->state()) all.push_back({t, {}});
    return all;
  }

  /// Saves now and then, and when a signal asks to stop.
  void pause_point(Trainer* trainer) {
    const Pause pause = agree_on_pause(*ranks_, seconds_since(last_save_) >= o_.checkpoint_seconds);
    if (pause.save) save(trainer);
    if (pause.exit_code) throw Stopped{pause.exit_code};
  }

  void next_pair() {
    results_.push_back(current_);
    current_ = {};
    at_ = Position{.run = at_.run + 1};
    write_summary(false);
    pause_point(nullptr);
  }

  void run_pair(const Checkpoint* resumed) {
    const Pair& pair = pairs_[at_.run];
    stream_ = plan_.stream(pair.seed);
    current_.method = pair.method, current_.seed = pair.seed;
    TrainerConfig config = with_stats(plan_.trainer(pair, *stream_), plan_, stream_->task(0));
    config.ranks = ranks_;
    Trainer trainer(config);
    std::optional<Probe> probe;
    if (plan_.cadence().any()) {
      probe.emplace(trainer, ProbeOptions{.fixed_images = plan_.probe_samples(stream_->task(0), kFixedImages).size()});
      probe_ = &*probe;
    } else {
      probe_ = nullptr;
    }
    if (resumed && !resumed->tensors.entries().empty()) {
      plan_.expect_heads(trainer, at_);
      resumed->restore(all_state(trainer));
      trainer.restored();
    }
    try {
      while (at_.task < stream_->tasks()) {
        learn_task(trainer, stream_->task(at_.task));
        at_.epoch = at_.batch = 0, at_.begun = false;
        ++at_.task;
        pause_point(&trainer);
      }
    } catch (const Diverged& e) {
      current_.diverged = true;
      current_.note = e.what();
      log_->write(LogLine("diverged")
                      .add("method", pair.method)
                      .add("seed", pair.seed)
                      .add("task", at_.task + 1)
                      .add("why", e.what()));
      progress_->note(cat(pair.method, ", seed ", pair.seed, ", task ", at_.task + 1, ": ", e.what()));
    }
    // The last checkpoint of a pair holds its final weights, for evergrad eval; one of a diverged pair would only be
    // trained on again.
    if (!current_.diverged) save(&trainer);
    current_.skipped_steps = trainer.skipped();
    current_.wall_seconds = at_.seconds, current_.probe_seconds = at_.probe_seconds;
    current_.peak_bytes = at_.peak_bytes;
    current_.images_per_second = at_.train_seconds > 0 ? double(at_.trained_images) / at_.train_seconds : 0.0;
    current_.wait_share = at_.train_seconds > 0 ? at_.wait_seconds / at_.train_seconds : 0.0;
  }

  void learn_task(Trainer& trainer, const Task& task) {
    say_busy(*ranks_, "beginning a task");
    const Pair& pair = pairs_[at_.run];
    const Tensor mask = plan_.training_mask(task);
    auto last = Clock::now();
    if (!at_.begun) {
      if (o_.test_earlier && o_.head != "multi") test_before(trainer, task);  // multi: its head is yet to be drawn
      // Opened by the first method that asks for a batch: most do not.
      std::optional<Loader> once;
      const auto next = [&] {
        if (!once) once.emplace(plan_.data(), task.train, task.transform, part(plan_.loader(task, pair.seed, false)));
        return once->next();
      };
      trainer.begin_task(at_.task, at_.task == 0 ? "keep" : plan_.trainer_head(), o_.optimizer_state == "keep", next,
                         mask);
      at_.begun = true;
      at_.loss_sum = 0.0, at_.correct = at_.seen = 0;
      at_.task_correct = at_.task_seen = 0;
      at_.epoch_accuracy.clear(), at_.curve.clear();
      if (plan_.shifts()) at_.shift.task_begins();
      if (o_.test_during) test_now(trainer, task);
      if (probe_) probe_->task_begins();
      if (probe_ && at_.task == 0) log_samples(task);
    }
    Loader loader(plan_.data(), task.train, task.transform, part(plan_.loader(task, pair.seed, true)));
    loader.seek(at_.epoch, at_.batch);
    double waited = 0.0;
    times_->begin(0.0);
    const std::int64_t per_epoch = loader.batches_per_epoch(), steps = plan_.updates(task);
    const std::int64_t epochs = plan_.epochs(task);
    for (; at_.epoch < epochs; ++at_.epoch, at_.batch = 0, at_.loss_sum = 0.0, at_.correct = at_.seen = 0) {
      while (at_.epoch * per_epoch + at_.batch < steps) {
        const Batch* batch = loader.next();
        if (batch == nullptr) break;
        const std::int64_t step = at_.epoch * per_epoch + at_.batch;
        const std::int64_t done = step + 1, next = next_probe(step, steps);
        if (probe_ && next > 0) probe_->before_update(step, next);
        const StepResult r = trainer.step(*batch, lr_factor(step, steps), mask, [&] { return loader.ahead(); });
        say_step(*ranks_);
        show_kernels();
        if (probe_ && next > 0) probe_->after_update(step, next);
        at_.loss_sum += r.loss * double(r.count);
        at_.correct += r.correct, at_.seen += r.count, at_.trained_images += r.count;
        at_.task_correct += r.correct, at_.task_seen += r.count;
        if (plan_.shifts() && r.count > 0) at_.shift.push(share(r.correct, r.count));
        ++at_.batch;
        const auto now = Clock::now();
        const double took = std::chrono::duration<double>(now - last).count();
        last = now;
        at_.train_seconds += took, at_.seconds += took;
        at_.wait_seconds += loader.wait_seconds() - waited, waited = loader.wait_seconds();
        show(done, steps, epochs);
        if (done == next && done < steps) {
          diagnose(task, done);
          last = Clock::now();
        }
        // The task's last update is saved together with its test: the diagnosis reads that update's gradient, which is
        // in no checkpoint.
        if (done < steps) pause_point(&trainer);
      }
      at_.epoch_accuracy.push_back(share(at_.correct, at_.seen));
      if (at_.epoch + 1 == epochs) break;  // the last epoch's sums go into the task's log line
      if (o_.test_during) {
        const auto start = Clock::now();
        test_now(trainer, task);
        last = Clock::now();
        at_.seconds += seconds_since(start);
      }
    }
    at_.peak_bytes = std::max(at_.peak_bytes, std::int64_t(trainer.peak_bytes()));
    const std::string slow = times_->end(
        waited, LogLine("ranks").add("method", pair.method).add("seed", pair.seed).add("task", at_.task + 1));
    if (!slow.empty()) progress_->note(slow);
    const auto evaluation_start = Clock::now();
    evaluate_task(trainer, task);
    at_.seconds += seconds_since(evaluation_start);
    at_.epoch = at_.batch = 0;
  }

  void show_kernels() {
    if (const std::string news = kernels_->news(); !news.empty()) progress_->note(news);
  }

  static double share(std::int64_t part, std::int64_t whole) { return whole ? double(part) / double(whole) : 0.0; }

  LoaderConfig part(LoaderConfig config) const {
    share_batches(config, *ranks_);
    return config;
  }

  void test_now(Trainer& trainer, const Task& task) {
    say_busy(*ranks_, "testing");
    at_.curve.push_back(test_task(plan_, pairs_[at_.run], trainer, task, own_test(task)).accuracy);
  }

  /// What forward transfer needs: the accuracy on a task before it is learned, and that of the untrained network.
  void test_before(Trainer& trainer, const Task& task) {
    const Pair& pair = pairs_[at_.run];
    const auto accuracy = [&](const Task& t) { return test_task(plan_, pair, trainer, t, own_test(t)).accuracy; };
    if (at_.task == 0)
      for (std::int64_t t = 0; t < stream_->tasks(); ++t) current_.untrained.push_back(accuracy(stream_->task(t)));
    current_.before.push_back(accuracy(task));
  }

  double lr_factor(std::int64_t step, std::int64_t steps) const {
    return schedule_factor(parse_schedule(o_.training.schedule), step, steps, o_.training.warmup_steps);
  }

  void evaluate_task(Trainer& trainer, const Task& task) {
    say_busy(*ranks_, "testing");
    trainer.check_ranks_agree();
    const Pair& pair = pairs_[at_.run];
    const SampleSet own = own_test(task);
    const Evaluation e = test_task(plan_, pair, trainer, task, own);
    show_kernels();
    current_.task_accuracy.push_back(e.accuracy);
    LogLine line("task");
    line.add("method", pair.method).add("seed", pair.seed).add("task", at_.task + 1).add("name", task.name);
    line.add("revisit", task.revisit);
    if (task.easy) line.add("easy", true), current_.easy.push_back(at_.task + 1);
    line.add("updates", trainer.steps()).add("skipped", trainer.skipped());
    line.add("train_loss", at_.seen ? at_.loss_sum / double(at_.seen) : 0.0);
    line.add("train_accuracy", share(at_.correct, at_.seen));
    current_.train_accuracy.push_back(share(at_.correct, at_.seen));
    current_.online_accuracy.push_back(share(at_.task_correct, at_.task_seen));
    line.add("online_accuracy", current_.online_accuracy.back());
    line.add("accuracy_by_epoch", std::span<const double>(at_.epoch_accuracy));
    line.add("test_loss", e.loss).add("test_accuracy", e.accuracy).add("test_images", e.count);
    if (plan_.shifts() && at_.task > 0) {
      current_.dip.resize(current_.task_accuracy.size() - 1, std::nan(""));
      current_.recovery.resize(current_.task_accuracy.size() - 1, std::nan(""));
      current_.dip.push_back(at_.shift.dip_depth()), current_.recovery.push_back(at_.shift.recovery_steps());
      if (at_.shift.measured())
        line.add("dip_depth", current_.dip.back()).add("recovery_steps", current_.recovery.back());
    }
    if (task.test.size() > own.size() || !current_.seen_accuracy.empty()) {
      // Where classes arrive the test set is that of all classes so far; the first task's is its own.
      current_.seen_accuracy.resize(current_.task_accuracy.size() - 1, current_.task_accuracy[0]);
      current_.seen_accuracy.push_back(test_task(plan_, pair, trainer, task, task.test).accuracy);
      line.add("seen_accuracy", current_.seen_accuracy.back());
    }
    if (o_.test_during) {
      at_.curve.push_back(e.accuracy);
      current_.area.push_back(area_under_curve(at_.curve));
      line.add("test_curve", std::span<const double>(at_.curve)).add("area_under_curve", current_.area.back());
    }
    if (o_.test_earlier) {
      std::vector<double>& row = current_.matrix.emplace_back();
      for (const Evaluation& earlier : test_earlier(plan_, pair, trainer, *stream_, at_.task))
        row.push_back(earlier.accuracy);
      line.add("accuracy_by_task", std::span<const double>(row));
    }
    for (const auto& [name, value] : trainer.optimizer().scalars()) line.add("optimizer." + name, value);
    log_->write(line);
    if (probe_ && diagnosed_at_end()) diagnose(task, 0);
    progress_->note(cat(pair.method, ", seed ", pair.seed, ", task ", at_.task + 1, "/", stream_->tasks(),
                        ": train loss ", fixed(at_.seen ? at_.loss_sum / double(at_.seen) : 0.0, 3), ", test accuracy ",
                        fixed(100 * e.accuracy, 2), "%", task.easy ? " (easy: not counted)" : ""));
  }

  /// The update after which the next diagnosis comes, counted within the task: the end of a task that is diagnosed, or
  /// a multiple of the cadence; 0: none.
  std::int64_t next_probe(std::int64_t step, std::int64_t steps) const {
    const ProbeCadence& c = plan_.cadence();
    if (c.steps > 0) return std::min(steps, (step / c.steps + 1) * c.steps);
    return diagnosed_at_end() ? steps : 0;
  }
  bool diagnosed_at_end() const {
    const ProbeCadence& c = plan_.cadence();
    return c.steps > 0 || (c.tasks > 0 && (at_.task + 1) % c.tasks == 0);
  }

  /// The images whose attention maps are in the diagnosis, for a report to lay the maps over.
  void log_samples(const Task& first) {
    const Pair& pair = pairs_[at_.run];
    Loader fixed(plan_.data(), plan_.probe_samples(first, kFixedImages), first.transform,
                 plan_.loader(first, pair.seed, false));
    const Batch* batch = fixed.next();
    nlohmann::json images = nlohmann::json::array();
    for (std::int64_t i = 0; i < std::min<std::int64_t>(batch->count, 4); ++i) {
      const std::size_t bytes = std::size_t(batch->channels) * std::size_t(batch->size) * std::size_t(batch->size);
      Canvas canvas(batch->size, batch->size);
      canvas.draw({batch->images.data() + std::size_t(i) * bytes, batch->channels, batch->size, batch->size}, 0, 0, 1);
      images.push_back({{"uri", "data:image/png;base64," + base64(canvas.png())},
                        {"grid", plan_.options().model.image_size / plan_.options().model.patch}});
    }
    LogLine line("samples");
    line.add("method", pair.method).add("seed", pair.seed).raw("images", images.dump());
    log_->write(line);
  }

  /// step: updates of this task so far, 0 at its end.
  void diagnose(const Task& task, std::int64_t step) {
    say_busy(*ranks_, "its diagnosis");
    const auto start = Clock::now();
    const Pair& pair = pairs_[at_.run];
    const Task first = stream_->task(0);
    Loader own(plan_.data(), plan_.probe_samples(task, o_.probe_images), task.transform,
               plan_.loader(task, pair.seed, false));
    Loader fixed(plan_.data(), plan_.probe_samples(first, kFixedImages), first.transform,
                 plan_.loader(first, pair.seed, false));
    Diagnosis d = probe_->measure(own, fixed);
    // Long lists a few times per stream: enough to look at, small enough for thousands of tasks.
    if (!worth_showing(at_.task, stream_->tasks())) d.maps.clear(), d.spectra.clear();
    LogLine line("diagnosis");
    line.add("method", pair.method).add("seed", pair.seed).add("task", at_.task + 1);
    if (step > 0) line.add("step", step);
    add_to(line, d);
    log_->write(line);
    at_.probe_seconds += seconds_since(start);
  }
  /// Some ten tasks at even places, the first and the last among them.
  static bool worth_showing(std::int64_t task, std::int64_t tasks) {
    return task == 0 || task + 1 == tasks || (task + 1) % std::max<std::int64_t>(1, tasks / 10) == 0;
  }

  void show(std::int64_t done, std::int64_t steps, std::int64_t epochs) {
    const Pair& pair = pairs_[at_.run];
    const double tasks = double(stream_->tasks()), in_task = double(done) / double(steps);
    progress_->update(
        {.what = cat(pair.method, ", seed ", pair.seed),
         .task = at_.task + 1,
         .tasks = stream_->tasks(),
         .epoch = at_.epoch + 1,
         .epochs = epochs,
         .loss = at_.seen ? at_.loss_sum / double(at_.seen) : -1.0,
         .accuracy = at_.seen ? double(at_.correct) / double(at_.seen) : -1.0,
         .images_per_second = at_.train_seconds > 0 ? double(at_.trained_images) / at_.train_seconds : -1.0,
         .done = (double(at_.run) + (double(at_.task) + in_task) / tasks) / double(pairs_.size())});
  }

  void write_summary(bool finished) const {
    if (!first()) return;
    nlohmann::json results = nlohmann::json::array();
    for (const RunResult& r : results_) results.push_back(eg::to_json(r));
    write_json(folder_->summary(), {{"finished", finished},
                                    {"stream", stream_->describe()},
                                    {"device", to_string(plan_.machine().device)},
                                    {"precision", plan_.machine().precision},
                                    {"threads", num_threads()},
                                    {"results", results}});
  }

  int finish() {
    write_summary(true);
    if (!first()) return 0;
    return print_results(folder_->path(), results_, stream_->describe());
  }

  const std::shared_ptr<Collectives> ranks_;
  const Plan plan_;
  const ContinualOptions& o_;
  const std::vector<Pair>& pairs_;
  std::shared_ptr<const TaskStream> stream_;  // of the present seed
  Probe* probe_ = nullptr;                    // of the present pair
  RunFolder* folder_ = nullptr;
  std::optional<KernelRecord> kernels_;
  Checkpoints* checkpoints_ = nullptr;
  Progress* progress_ = nullptr;
  JsonLog* log_ = nullptr;
  std::optional<RankTimes> times_;
  std::vector<RunResult> results_;
  RunResult current_;
  Position at_;
  std::int64_t saves_ = 0;
  Clock::time_point last_save_ = Clock::now();
};

}  // namespace

int run_continual(const ContinualOptions& given) {
  ContinualOptions options = given;
  if (options.ranks_as_jobs) return run_farm(options);  // the processes of the start share runs, not batches
  const std::shared_ptr<Collectives> ranks =
      connect_ranks(options.ranks, &options.machine.device, options.machine.deterministic);
  return run_as_rank(*ranks, [&] {
    if (options.jobs == 1 && options.sweep.empty()) return Benchmark(options, ranks).run();
    check(ranks->size() == 1, Kind::usage, [&] {
      return cat("--jobs and --sweep start processes of their own, which ", ranks->size(),
                 " ranks would do once each; let the ranks share the runs with --ranks-as-jobs, or start one process");
    });
    return run_farm(options);
  });
}

}  // namespace eg
