// apps/continual/summary.cpp - see summary.h.
#include "apps/continual/summary.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/continual/measures.h"
#include "apps/report/chart.h"
#include "apps/run/table.h"
#include "apps/run/tensorboard.h"
#include "engine/error.h"

namespace eg {

nlohmann::json to_json(const RunResult& r) {
  nlohmann::json j = {{"method", r.method},
                      {"seed", r.seed},
                      {"aat", average_accuracy(r.task_accuracy)},
                      {"last_quarter", last_quarter_accuracy(r.task_accuracy)},
                      {"slope_per_task", slope(r.task_accuracy)},
                      {"task_accuracy", r.task_accuracy},
                      {"images_per_second", r.images_per_second},
                      {"wall_seconds", r.wall_seconds},
                      {"probe_seconds", r.probe_seconds},
                      {"peak_bytes", r.peak_bytes},
                      {"data_wait_share", r.wait_share},
                      {"skipped_steps", r.skipped_steps},
                      {"diverged", r.diverged}};
  if (!r.seen_accuracy.empty()) j["seen_accuracy"] = r.seen_accuracy;
  if (!r.matrix.empty()) {
    j["accuracy_matrix"] = r.matrix;
    j["backward_transfer"] = backward_transfer(r.matrix);
    j["forgetting"] = forgetting(r.matrix);
  }
  const auto add = [&](const char* key, const std::vector<double>& values) {
    if (!values.empty()) j[key] = values;
  };
  add("train_accuracy", r.train_accuracy), add("online_accuracy", r.online_accuracy), add("area_under_curve", r.area);
  add("before_accuracy", r.before), add("untrained_accuracy", r.untrained);
  if (!r.before.empty()) j["forward_transfer"] = forward_transfer(r.before, r.untrained);
  if (!r.note.empty()) j["note"] = r.note;
  return j;
}

RunResult result_from_json(const nlohmann::json& j) {
  RunResult r;
  r.method = j.at("method").get<std::string>();
  r.seed = j.at("seed").get<std::uint64_t>();
  r.task_accuracy = j.at("task_accuracy").get<std::vector<double>>();
  r.seen_accuracy = j.value("seen_accuracy", std::vector<double>{});
  r.matrix = j.value("accuracy_matrix", ResultMatrix{});
  const auto list = [&](const char* key) { return j.value(key, std::vector<double>{}); };
  r.train_accuracy = list("train_accuracy"), r.online_accuracy = list("online_accuracy");
  r.area = list("area_under_curve"), r.before = list("before_accuracy"), r.untrained = list("untrained_accuracy");
  r.images_per_second = j.at("images_per_second").get<double>();
  r.wall_seconds = j.at("wall_seconds").get<double>();
  r.probe_seconds = j.value("probe_seconds", 0.0), r.peak_bytes = j.value("peak_bytes", std::int64_t(0));
  r.wait_share = j.value("data_wait_share", 0.0);
  r.skipped_steps = j.value("skipped_steps", std::int64_t(0));
  r.diverged = j.at("diverged").get<bool>();
  r.note = j.value("note", std::string());
  return r;
}

namespace {

/// The results grouped by method, in order of first appearance.
std::vector<std::pair<std::string, std::vector<const RunResult*>>> by_method(const std::vector<RunResult>& results) {
  std::vector<std::pair<std::string, std::vector<const RunResult*>>> groups;
  for (const RunResult& r : results) {
    auto* group = &groups.emplace_back();
    for (auto& g : groups)
      if (g.first == r.method) {
        group = &g;
        break;
      }
    if (group != &groups.back()) groups.pop_back();
    group->first = r.method;
    group->second.push_back(&r);
  }
  return groups;
}

std::string percent(const Spread& s, bool several) {
  return several ? fixed(100 * s.mean, 2) + " +- " + fixed(100 * s.deviation, 2) : fixed(100 * s.mean, 2);
}

}  // namespace

std::string results_table(const std::vector<RunResult>& results) {
  TextTable table({"method", "AAT %", "last quarter %", "slope %/task", "images/s", "seeds", "diverged"});
  for (const auto& [method, runs] : by_method(results)) {
    std::vector<double> aat, last, slopes, speed;
    int diverged = 0;
    for (const RunResult* r : runs) {
      diverged += r->diverged;
      if (r->diverged) continue;
      aat.push_back(average_accuracy(r->task_accuracy));
      last.push_back(last_quarter_accuracy(r->task_accuracy));
      slopes.push_back(slope(r->task_accuracy));
      speed.push_back(r->images_per_second);
    }
    const bool several = aat.size() > 1, any = !aat.empty();
    table.add_row({method, any ? percent(spread(aat), several) : "-", any ? percent(spread(last), several) : "-",
                   any ? fixed(100 * spread(slopes).mean, 2) : "-", any ? fixed(spread(speed).mean, 0) : "-",
                   std::to_string(runs.size()), std::to_string(diverged)});
  }
  return table.text();
}

std::string write_accuracy_chart(const std::filesystem::path& file, const std::vector<RunResult>& results,
                                 const std::string& title) {
  std::vector<ChartSeries> lines;
  double top = 0.0;
  for (const auto& [method, runs] : by_method(results)) {
    ChartSeries line;
    line.name = method;
    for (std::size_t task = 0;; ++task) {
      std::vector<double> values;
      for (const RunResult* r : runs)
        if (task < r->task_accuracy.size()) values.push_back(100 * r->task_accuracy[task]);
      if (values.empty()) break;
      const Spread s = spread(values);
      line.xs.push_back(double(task + 1));
      line.ys.push_back(s.mean);
      line.lo.push_back(std::max(0.0, s.mean - s.deviation));
      line.hi.push_back(std::min(100.0, s.mean + s.deviation));
      top = std::max(top, line.hi.back());
    }
    if (!line.xs.empty()) lines.push_back(std::move(line));
  }
  if (lines.empty()) return "no chart: no task was finished";
  try {
    ChartOptions options{.whole_x = true};
    if (top > 80.0) options.y_max = 100.0;
    write_line_chart(file, title, "task", "test accuracy on the task just learned, %", lines, options);
  } catch (const Error& e) {
    if (e.kind == Kind::io) throw;
    return e.what();
  }
  return {};
}

int print_results(const std::filesystem::path& folder, const std::vector<RunResult>& results,
                  const std::string& title) {
  const std::string no_chart = write_accuracy_chart(folder / "accuracy.png", results, title);
  write_event_files(folder);
  std::cout << '\n' << results_table(results) << '\n';
  if (!no_chart.empty()) std::cout << no_chart << '\n';
  double probing = 0.0, wall = 0.0;
  bool any = false;
  for (const RunResult& r : results) {
    probing += r.probe_seconds, wall += r.wall_seconds;
    if (r.diverged) std::cout << r.method << ", seed " << r.seed << " diverged: " << r.note << '\n';
    any |= !r.diverged;
  }
  if (probing > 0.0 && wall > 0.0)
    std::cout << "Diagnosis took " << fixed(100 * probing / wall, 1) << "% of the time (--probe sets its cadence).\n";
  std::cout << "Run folder: " << folder.string() << '\n';
  return any ? 0 : 1;
}

}  // namespace eg
