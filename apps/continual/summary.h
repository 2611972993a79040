// apps/continual/summary.h - what a finished (method, seed) run leaves behind, and the table made of all of them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace eg {

struct RunResult {
  std::string method;
  std::uint64_t seed = 0;
  std::vector<double> task_accuracy;        // test accuracy (0..1) on task k right after learning it
  std::vector<double> seen_accuracy;        // on all classes seen so far; only for protocols with a growing head
  std::vector<std::vector<double>> matrix;  // [i][j <= i]: on task j after task i; only with --test-earlier
  // Each over the tasks; the last three only where they were asked for.
  std::vector<double> train_accuracy;     // in the last epoch
  std::vector<double> online_accuracy;    // of all steps of the task, each image before the update from it
  std::vector<double> area;               // under the task's test curve (--test-during)
  std::vector<double> before, untrained;  // on a task before learning it; of the first network (--test-earlier)
  std::vector<std::int64_t> easy;         // numbers (from 1) of tasks that count in no average (5+1)
  std::vector<double> dip, recovery;      // of a shifting domain: ShiftTracker, NaN where not measured
  double images_per_second = 0.0;         // training images over training time, evaluation not counted
  double wall_seconds = 0.0;
  double probe_seconds = 0.0;      // of which: diagnosis
  std::int64_t peak_bytes = 0;     // weights, gradients, optimizer state and the most activations at a time
  double wait_share = 0.0;         // share of training time spent waiting for data
  std::int64_t skipped_steps = 0;  // updates left out because of a non-finite gradient
  bool diverged = false;
  std::string note;  // why it diverged
};

/// Of one value per task, those of the tasks that count.
std::vector<double> counted(const RunResult& r, const std::vector<double>& by_task);

nlohmann::json to_json(const RunResult& r);
RunResult result_from_json(const nlohmann::json& j);

/// method x (AAT mean and spread over seeds, last quarter, images/s): the table at the end of a run.
std::string results_table(const std::vector<RunResult>& results);
/// Accuracy over tasks, one line per method with a band of one standard deviation over seeds. Returns a sentence when
/// no chart could be drawn in this build, else an empty text.
std::string write_accuracy_chart(const std::filesystem::path& file, const std::vector<RunResult>& results,
                                 const std::string& title);

/// What a command says at its end: the table, the chart (accuracy.png in `folder`), what diverged. Returns the exit code:
/// 1 when every run diverged.
int print_results(const std::filesystem::path& folder, const std::vector<RunResult>& results, const std::string& title);

}  // namespace eg
