// apps/continual/farm.cpp - see farm.h.
#include "apps/continual/farm.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "apps/continual/crew.h"
#include "apps/continual/measures.h"
#include "apps/continual/plan.h"
#include "apps/continual/summary.h"
#include "apps/continual/sweep.h"
#include "apps/run/processes.h"
#include "apps/run/progress.h"
#include "apps/run/run_folder.h"
#include "apps/run/signals.h"
#include "apps/run/table.h"
#include "engine/parallel.h"

namespace eg {
namespace {

namespace fs = std::filesystem;

/// Raised when a signal asked to stop; the runs have saved.
struct Stopped {};

/// The summary of a folder's run once it is finished.
std::optional<RunResult> finished_result(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder / "summary.json", error)) return std::nullopt;
  const auto json = nlohmann::json::parse(read_file(folder / "summary.json"), nullptr, false);
  if (json.is_discarded() || !json.value("finished", false) || json.at("results").size() != 1) return std::nullopt;
  return result_from_json(json.at("results")[0]);
}

std::int64_t lines_of(const fs::path& file, const std::string& beginning) {
  std::ifstream in(file);
  std::int64_t count = 0;
  for (std::string line; std::getline(in, line);) count += line.rfind(beginning, 0) == 0;
  return count;
}

class Farm {
 public:
  explicit Farm(const ContinualOptions& given)
      : given_(given),
        launch_(given.ranks_as_jobs ? detect_launch() : Launch{}),
        plan_(given),
        progress_(Progress::standard()) {
    if (given.ranks_as_jobs) forget_launch();  // the runs are no ranks
    for (const std::string& text : given.sweep)
      for (SweepAxis& axis : parse_sweep(text)) axes_.push_back(std::move(axis));
    for (const Pair& pair : plan_.pairs())
      if (methods_.empty() || methods_.back() != pair.method) methods_.push_back(pair.method);
    check_sweep(methods_, axes_);
    check(axes_.empty() || given.validation == 0.0, Kind::usage, [] {
      return std::string(
          "--sweep chooses on held-out images by itself and then tests on the test set; leave out "
          "--validation");
    });
  }

  int run() {
    check_points();
    const Config config = plan_.config();
    std::optional<RunFolder> folder;  // locked; the other ranks of a start work inside it
    if (first()) {
      folder = RunFolder::open(given_.out, given_.resume);
      if (folder->continues())
        check_resumable(*folder, config);
      else
        config.write(folder->config());
      out_ = folder->path();
    }
    catch_stop_signals();
    if (given_.ranks_as_jobs) {
      if (!first()) out_ = await_run_folder(given_.out, config);
      crew_ = std::make_unique<Crew>(out_, launch_, given_.stale_seconds);
    }
    if (first()) progress_.note(plan_.stream(plan_.pairs()[0].seed)->describe());
    try {
      if (!axes_.empty()) choose();
      const std::vector<RunResult> results = run_all("runs", final_pairs(), 0.0, 0);
      return first() ? report(results) : 0;
    } catch (const Stopped&) {
      progress_.clear();
      std::cout << "Stopped by a signal and saved; continue with the same command and --resume.\n";
      return stop_exit_code();
    }
  }

 private:
  /// A setting that no method takes is said before anything runs.
  void check_points() const {
    const auto stream = plan_.stream(plan_.pairs()[0].seed);
    check(given_.sweep_tasks <= stream->tasks(), Kind::usage, [&] {
      return cat("--sweep-tasks ", given_.sweep_tasks, ": the stream has only ", stream->tasks(), " tasks");
    });
    for (const std::string& method : methods_)
      for (const std::string& point : sweep_points(method, axes_, given_.sweep_budget))
        method_settings(plan_.trainer({point, 1}, *stream));
  }

  /// False for all but one process of a start: that one keeps the folder, speaks and writes the summary.
  bool first() const { return launch_.rank == 0; }

  std::int64_t stream_tasks() const { return plan_.stream(plan_.pairs()[0].seed)->tasks(); }

  /// Threads of one run: all cores are shared out.
  int threads() const {
    const int jobs = std::max(1, given_.jobs) * std::max(1, launch_.local_size);
    return given_.machine.threads > 0 ? given_.machine.threads : std::max(1, num_threads() / jobs);
  }

  int at_a_time() const { return std::max(1, given_.jobs) * launch_.size; }

  /// limit: of every run's tasks; 0: the whole stream.
  std::vector<RunResult> run_all(const std::string& where, const std::vector<Pair>& pairs, double validation,
                                 std::int64_t limit) {
    const fs::path base = out_ / where;
    fs::create_directories(base);
    // What a run is told: this command's configuration, one method, one seed.
    ContinualOptions one = given_;
    one.sweep.clear(), one.jobs = 1, one.ranks_as_jobs = false, one.validation = validation,
                       one.machine.threads = threads();
    if (limit > 0) one.tasks = int(limit);
    const auto name = [&](std::size_t i) { return run_name(pairs[i].method, pairs[i].seed); };
    const auto log = [&](std::size_t i) { return base / (name(i) + ".log"); };
    const auto is_finished = [&](std::size_t i) { return finished_result(base / name(i)).has_value(); };
    const auto process = [&](std::size_t i) {
      one.methods = pairs[i].method, one.seeds = std::to_string(pairs[i].seed), one.out = (base / name(i)).string();
      const fs::path config = base / (name(i) + ".toml");
      Plan(one).config().write(config);
      return Process{{"continual", "--config", config.string(), "--out", one.out, "--resume"}, log(i)};
    };
    const std::int64_t tasks = limit > 0 ? limit : stream_tasks();
    std::size_t done = 0, failed = 0;
    auto shown = std::chrono::steady_clock::now();
    const auto show = [&] {
      if (!first() || std::chrono::steady_clock::now() - shown < std::chrono::seconds(1)) return;
      shown = std::chrono::steady_clock::now();
      std::int64_t finished_tasks = 0;
      for (std::size_t i = 0; i < pairs.size(); ++i)
        finished_tasks += lines_of(base / name(i) / "metrics.jsonl", "{\"event\":\"task\"");
      if (crew_) done = crew_->finished();
      progress_.update({.what = cat(where == "sweep" ? "sweep: " : "", done, " of ", pairs.size(), " runs finished, ",
                                    std::min(pairs.size(), std::size_t(at_a_time())), " at a time"),
                        .done = before_ + (1.0 - before_) * part_ * double(finished_tasks) /
                                              double(tasks * std::int64_t(pairs.size()))});
    };
    const auto ended = [&](std::size_t i, int code) {
      const auto result = finished_result(base / name(i));
      ++done;
      if (stop_signal() != 0 && !result) return;
      failed += !result;
      progress_.note(
          cat(crew_ ? cat("rank ", launch_.rank, ": ") : "", where == "sweep" ? "sweep: " : "", pairs[i].method,
              ", seed ", pairs[i].seed, ": ",
              !result ? cat("failed with code ", code, ", see ", log(i).string())
              : result->diverged
                  ? std::string("diverged")
                  : cat("AAT ", fixed(100 * average_accuracy(counted(*result, result->task_accuracy)), 2), "%")));
    };
    const int jobs = std::max(1, given_.jobs);
    if (crew_) {
      std::vector<std::string> names;
      for (std::size_t i = 0; i < pairs.size(); ++i) names.push_back(cat(where, "-", name(i)));
      if (!crew_->work(names, {is_finished, process, log, ended, show}, jobs)) throw Stopped{};
      failed = crew_->failed();
    } else {
      std::vector<Process> processes;
      std::vector<std::size_t> index;  // into pairs
      for (std::size_t i = 0; i < pairs.size(); ++i)
        if (!is_finished(i)) processes.push_back(process(i)), index.push_back(i);
      done = pairs.size() - processes.size();
      const auto of_pair = [&](std::size_t k, int code) { ended(index[k], code); };
      if (!run_processes(own_program(), processes, jobs, of_pair, show)) throw Stopped{};
    }
    check(failed == 0, Kind::io, [&] {
      return cat(failed, " of ", pairs.size(), " runs failed; their logs are ", base.string(),
                 "/*.log; repair the cause and run the same command with --resume");
    });
    std::vector<RunResult> results;
    for (const Pair& pair : pairs) results.push_back(*finished_result(base / run_name(pair.method, pair.seed)));
    return results;
  }

  /// Runs every setting of every method on the sweep's seeds with held-out images, and keeps each method's best.
  void choose() {
    const std::vector<std::uint64_t> seeds = parse_seeds(given_.sweep_seeds);
    for (const Pair& pair : plan_.pairs())
      check(std::find(seeds.begin(), seeds.end(), pair.seed) == seeds.end(), Kind::usage, [&] {
        return cat("seed ", pair.seed,
                   " is both in --seeds and in --sweep-seeds; settings must be chosen on other streams");
      });
    const std::int64_t all = stream_tasks(), tasks = given_.sweep_tasks > 0 ? given_.sweep_tasks : all;
    std::vector<std::vector<std::string>> points;
    std::vector<Pair> pairs;
    for (const std::string& method : methods_) {
      points.push_back(sweep_points(method, axes_, given_.sweep_budget));
      for (const std::string& point : points.back())
        for (const std::uint64_t seed : seeds) pairs.push_back({point, seed});
    }
    if (first()) say_budgets(points);
    const double tried_tasks = double(tasks) * double(pairs.size());
    part_ = tried_tasks / (tried_tasks + double(all) * double(plan_.pairs().size()));
    const std::vector<RunResult> results = run_all("sweep", pairs, kHeldOut, given_.sweep_tasks);
    before_ = part_, part_ = 1.0;
    nlohmann::json tried = nlohmann::json::array();
    std::size_t at = 0;
    TextTable table({"method", "settings tried", "chosen", "validation AAT %"});
    for (std::size_t m = 0; m < methods_.size(); ++m) {
      std::vector<double> scores;
      nlohmann::json list = nlohmann::json::array();
      for (const std::string& point : points[m]) {
        double sum = 0.0;
        for (std::size_t s = 0; s < seeds.size(); ++s, ++at)
          sum += results[at].diverged ? std::numeric_limits<double>::quiet_NaN()
                                      : average_accuracy(counted(results[at], results[at].task_accuracy));
        scores.push_back(sum / double(seeds.size()));
        list.push_back({{"settings", point}, {"validation_aat", scores.back()}});
      }
      const std::size_t best = best_point(scores);
      chosen_.push_back(points[m][best]);
      tried.push_back({{"method", methods_[m]}, {"points", list}, {"chosen", chosen_.back()}});
      table.add_row({methods_[m], std::to_string(points[m].size()), chosen_.back(), fixed(100 * scores[best], 2)});
    }
    if (!first()) return;
    write_json(out_ / "sweep.json",
               {{"seeds", seeds}, {"tasks", tasks}, {"held_out_share", kHeldOut}, {"methods", tried}});
    progress_.clear();
    std::cout << table.text() << '\n';
  }

  void say_budgets(const std::vector<std::vector<std::string>>& points) {
    std::size_t least = points[0].size(), most = least;
    for (const auto& p : points) least = std::min(least, p.size()), most = std::max(most, p.size());
    if (least != most)
      progress_.note(cat("The methods are not tuned equally hard: between ", least, " and ", most,
                         " settings each; --sweep-budget ", least, " would make it so"));
  }

  std::vector<Pair> final_pairs() const {
    std::vector<Pair> pairs = plan_.pairs();
    if (chosen_.empty()) return pairs;
    for (Pair& pair : pairs)
      pair.method = chosen_[std::size_t(std::find(methods_.begin(), methods_.end(), pair.method) - methods_.begin())];
    return pairs;
  }

  /// One log, one summary, one chart and one table of all runs, as if they had run one after the other.
  int report(const std::vector<RunResult>& results) {
    std::string log;
    nlohmann::json list = nlohmann::json::array();
    for (const RunResult& r : results) {
      log += read_file(out_ / "runs" / run_name(r.method, r.seed) / "metrics.jsonl");
      list.push_back(eg::to_json(r));
    }
    write_file(out_ / "metrics.jsonl", log);
    const std::string stream = plan_.stream(plan_.pairs()[0].seed)->describe();
    write_json(out_ / "summary.json", {{"finished", true},
                                       {"stream", stream},
                                       {"device", to_string(plan_.machine().device)},
                                       {"precision", plan_.machine().precision},
                                       {"threads", threads()},
                                       {"results", list}});
    std::error_code ignored;
    if (crew_) fs::remove_all(out_ / "claims", ignored);
    progress_.clear();
    return print_results(out_, results, stream);
  }

  /// Share of a class's training images that settings are chosen on.
  static constexpr double kHeldOut = 0.2;
  const ContinualOptions given_;
  const Launch launch_;
  const Plan plan_;
  Progress progress_;
  std::unique_ptr<Crew> crew_;  // with --ranks-as-jobs
  std::vector<SweepAxis> axes_;
  std::vector<std::string> methods_, chosen_;
  double before_ = 0.0, part_ = 1.0;  // share of all work that is done, and that of the rest which runs now
  fs::path out_;
};

}  // namespace

int run_farm(const ContinualOptions& options) { return Farm(options).run(); }

}  // namespace eg
