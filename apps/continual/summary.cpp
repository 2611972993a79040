// apps/continual/summary.cpp - see summary.h.
#include "apps/continual/summary.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "apps/continual/measures.h"
#include "apps/report/chart.h"
#include "apps/report/names.h"
#include "apps/run/table.h"
#include "apps/run/tensorboard.h"
#include "engine/error.h"

namespace eg {

namespace {

bool counts(const RunResult& r, std::size_t task) {
  return std::find(r.easy.begin(), r.easy.end(), std::int64_t(task) + 1) == r.easy.end();
}

/// Rows and columns of the tasks that count.
ResultMatrix counted_matrix(const RunResult& r) {
  ResultMatrix m;
  for (std::size_t i = 0; i < r.matrix.size(); ++i)
    if (counts(r, i)) m.push_back(counted(r, r.matrix[i]));
  return m;
}

/// Mean of the numbers; NaN for none.
double mean_of_numbers(const std::vector<double>& values) {
  std::vector<double> numbers;
  std::copy_if(values.begin(), values.end(), std::back_inserter(numbers), [](double x) { return std::isfinite(x); });
  return numbers.empty() ? std::nan("") : average_accuracy(numbers);
}

/// NaN, which JSON has not, is null.
nlohmann::json with_gaps(const std::vector<double>& values) {
  nlohmann::json list = nlohmann::json::array();
  for (const double x : values) list.push_back(std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr));
  return list;
}

}  // namespace

std::vector<double> counted(const RunResult& r, const std::vector<double>& by_task) {
  std::vector<double> some;
  for (std::size_t t = 0; t < by_task.size(); ++t)
    if (counts(r, t)) some.push_back(by_task[t]);
  return some;
}

nlohmann::json to_json(const RunResult& r) {
  const std::vector<double> accuracy = counted(r, r.task_accuracy);
  nlohmann::json j = {{"method", r.method},
                      {"seed", r.seed},
                      {"aat", average_accuracy(accuracy)},
                      {"last_quarter", last_quarter_accuracy(accuracy)},
                      {"slope_per_task", slope(accuracy)},
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
    const ResultMatrix m = counted_matrix(r);
    j["backward_transfer"] = backward_transfer(m), j["forgetting"] = forgetting(m);
  }
  const auto add = [&](const char* key, const std::vector<double>& values) {
    if (!values.empty()) j[key] = values;
  };
  add("train_accuracy", r.train_accuracy), add("online_accuracy", r.online_accuracy), add("area_under_curve", r.area);
  add("before_accuracy", r.before), add("untrained_accuracy", r.untrained);
  if (!r.before.empty()) j["forward_transfer"] = forward_transfer(counted(r, r.before), counted(r, r.untrained));
  if (!r.easy.empty()) j["easy_tasks"] = r.easy;
  if (!r.dip.empty()) {
    j["dip_depths"] = with_gaps(r.dip), j["recovery_steps"] = with_gaps(r.recovery);
    const double dip = mean_of_numbers(r.dip);
    j["dip_depth"] = std::isfinite(dip) ? nlohmann::json(dip) : nlohmann::json(nullptr);
  }
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
  r.easy = j.value("easy_tasks", std::vector<std::int64_t>{});
  const auto gaps = [&](const char* key) {
    std::vector<double> values;
    for (const auto& x : j.value(key, nlohmann::json::array()))
      values.push_back(x.is_null() ? std::nan("") : x.get<double>());
    return values;
  };
  r.dip = gaps("dip_depths"), r.recovery = gaps("recovery_steps");
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
      const std::vector<double> accuracy = counted(*r, r->task_accuracy);
      aat.push_back(average_accuracy(accuracy));
      last.push_back(last_quarter_accuracy(accuracy));
      slopes.push_back(slope(accuracy));
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
  const auto methods = by_method(results);
  std::vector<std::string> texts;
  for (const auto& [method, runs] : methods) texts.push_back(method);
  const std::vector<std::string> names = report::short_names(texts);
  for (std::size_t m = 0; m < methods.size(); ++m) {
    const auto& runs = methods[m].second;
    ChartSeries line;
    line.name = names[m];
    for (std::size_t task = 0;; ++task) {
      std::vector<double> values;
      for (const RunResult* r : runs)
        if (task < r->task_accuracy.size() && counts(*r, task)) values.push_back(100 * r->task_accuracy[task]);
      const bool more =
          std::any_of(runs.begin(), runs.end(), [&](const RunResult* r) { return task < r->task_accuracy.size(); });
      if (!more) break;
      if (values.empty()) continue;  // an easy task
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
  std::cout << '\n'
            << results_table(results)
            << "AAT: mean accuracy on the task just learned; slope: its trend over the tasks. +- is one deviation over "
               "seeds.\n\n";
  if (!no_chart.empty()) std::cout << no_chart << '\n';
  double probing = 0.0, wall = 0.0;
  bool any = false;
  for (const RunResult& r : results) {
    probing += r.probe_seconds, wall += r.wall_seconds;
    if (r.diverged) std::cout << r.method << ", seed " << r.seed << " diverged: " << r.note << '\n';
    any |= !r.diverged;
  }
  const auto easy = std::max_element(results.begin(), results.end(),
                                     [](const auto& a, const auto& b) { return a.easy.size() < b.easy.size(); });
  if (easy != results.end() && !easy->easy.empty())
    std::cout << "AAT, last quarter and slope leave out the " << easy->easy.size()
              << " easy tasks of each run; their accuracies are in summary.json.\n";
  for (const auto& [method, runs] : by_method(results)) {
    std::vector<double> dips;
    std::size_t shifts = 0, lost = 0;
    for (const RunResult* r : runs) {
      if (const double d = mean_of_numbers(r->dip); std::isfinite(d)) dips.push_back(d);
      for (const double s : r->recovery) shifts += s >= 0.0, lost += s < 0.0;
    }
    if (!dips.empty())
      std::cout << method << ": at a shift, accuracy dips by " << fixed(100 * average_accuracy(dips), 1)
                << " points (mean); it returned within the task after " << shifts << " of " << shifts + lost
                << " shifts\n";
  }
  if (probing > 0.0 && wall > 0.0)
    std::cout << "Diagnosis took " << fixed(100 * probing / wall, 1) << "% of the time (--probe sets its cadence).\n";
  std::cout << "Run folder: " << folder.string() << '\n';
  return any ? 0 : 1;
}

}  // namespace eg
