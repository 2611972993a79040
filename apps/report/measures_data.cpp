// apps/report/measures_data.cpp - see measures_data.h.
#include "apps/report/measures_data.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "apps/continual/measures.h"
#include "apps/continual/statistics.h"

namespace eg::report {
namespace {

Values numbers_of(const std::map<std::uint64_t, double>& map) {
  Values v;
  for (const auto& [seed, value] : map) v.push_back(value);
  return v;
}

/// When a learning curve first reaches `level`, in epochs, between its points by a straight line; its length where it
/// never does.
double time_to(const Values& curve, double level) {
  for (std::size_t i = 0; i < curve.size(); ++i) {
    if (curve[i] < level) continue;
    return i == 0 ? 0.0 : double(i - 1) + (level - curve[i - 1]) / (curve[i] - curve[i - 1]);
  }
  return double(curve.size()) - 1.0;
}

/// Fresh minus method, mean over the tasks that count; NaN unless both have the same tasks.
double gap_of(const RecordedRun& run, const Values& fresh) {
  const Values accuracy = per_task(run, "test_accuracy");
  if (fresh.size() != accuracy.size() || accuracy.empty()) return std::nan("");
  Values theirs;
  for (std::size_t t = 0; t < fresh.size(); ++t)
    if (!run.tasks[t].value("easy", false)) theirs.push_back(fresh[t]);
  return average_accuracy(theirs) - average_accuracy(per_counted_task(run, "test_accuracy"));
}

/// Mean over tasks of the run's time to 90% of the fresh network's last accuracy, over that network's own time.
double time_ratio_of(const RecordedRun& run, const RecordedRun& fresh) {
  Values times;
  for (std::size_t t = 0; t < std::min(run.tasks.size(), fresh.tasks.size()); ++t) {
    const Values mine = values_of(run.tasks[t].value("test_curve", Json()));
    const Values theirs = values_of(fresh.tasks[t].value("test_curve", Json()));
    if (mine.size() < 2 || theirs.size() < 2 || run.tasks[t].value("easy", false)) continue;
    const double level = 0.9 * theirs.back(), base = time_to(theirs, level);
    if (base > 0.0) times.push_back(time_to(mine, level) / base);
  }
  return times.empty() ? std::nan("") : average_accuracy(times);
}

}  // namespace

const std::vector<Measure>& measures() {
  const auto summary = [](const char* key) {
    return [key](const RecordedRun& r) {
      return r.summary.is_object() ? value_of(r.summary.value(key, Json())) : std::nan("");
    };
  };
  const auto mean = [](const char* key) {
    return [key](const RecordedRun& r) {
      const Values v = per_counted_task(r, key);
      return v.empty() ? std::nan("") : average_accuracy(v);
    };
  };
  static const std::vector<Measure> all = {
      {"aat", mean("test_accuracy")},
      {"last_quarter",
       [](const RecordedRun& r) { return last_quarter_accuracy(per_counted_task(r, "test_accuracy")); }},
      {"online", mean("online_accuracy")},
      {"train", mean("train_accuracy")},
      {"area_under_curve", mean("area_under_curve")},
      {"slope", [](const RecordedRun& r) { return slope(per_counted_task(r, "test_accuracy")); }},
      {"dip_depth", summary("dip_depth")},
      {"forgetting", summary("forgetting")},
      {"backward_transfer", summary("backward_transfer")},
      {"forward_transfer", summary("forward_transfer")},
      {"images_per_second", summary("images_per_second")},
      {"wall_seconds", summary("wall_seconds")},
      {"peak_bytes", summary("peak_bytes")}};
  return all;
}

std::map<std::uint64_t, double> by_seed(const Method& m, const std::function<double(const RecordedRun&)>& value) {
  std::map<std::uint64_t, double> all;
  for (const auto& [run, folder] : m.runs) {
    if (run->status != "finished") continue;
    const double v = value(*run);
    if (std::isfinite(v)) all[run->seed] = v;
  }
  return all;
}

Json summary_json(const Group& group, const Method& m, const std::map<std::uint64_t, Values>& fresh) {
  Json summary = Json::object();
  for (const Measure& measure : measures()) {
    const Values v = numbers_of(by_seed(m, measure.value));
    if (!v.empty()) summary[measure.name] = interval_json(v);
  }
  if (m.fresh || fresh.empty()) return summary;
  Values gaps, ratios;
  for (const auto& [run, folder] : m.runs) {
    const auto reference = fresh.find(run->seed);
    if (run->status != "finished" || reference == fresh.end()) continue;
    const double gap = gap_of(*run, reference->second);
    if (std::isfinite(gap)) gaps.push_back(gap);
  }
  if (!gaps.empty()) summary["gap"] = interval_json(gaps);
  const auto first_fresh =
      std::find_if(group.methods.begin(), group.methods.end(), [](const Method& f) { return f.fresh; });
  if (first_fresh == group.methods.end()) return summary;
  for (const auto& [run, folder] : m.runs)
    for (const auto& [other, other_folder] : first_fresh->runs) {
      if (other->seed != run->seed || run->status != "finished" || other->status != "finished") continue;
      const double ratio = time_ratio_of(*run, *other);
      if (std::isfinite(ratio)) ratios.push_back(ratio);
    }
  if (!ratios.empty()) summary["time_ratio"] = interval_json(ratios);
  return summary;
}

Json tests_json(const Group& group) {
  Json tests = Json::array();
  for (const Measure& measure : measures()) {
    if (std::string(measure.name) != "aat" && std::string(measure.name) != "last_quarter") continue;
    for (std::size_t a = 0; a < group.methods.size(); ++a)
      for (std::size_t b = a + 1; b < group.methods.size(); ++b) {
        const auto x = by_seed(group.methods[a], measure.value), y = by_seed(group.methods[b], measure.value);
        Values va, vb;
        for (const auto& [seed, value] : x)
          if (const auto at = y.find(seed); at != y.end()) va.push_back(value), vb.push_back(at->second);
        if (va.empty()) continue;
        const PairedTest t = paired_test(va, vb);
        tests.push_back({{"measure", measure.name},
                         {"a", group.methods[a].name},
                         {"b", group.methods[b].name},
                         {"difference", number(t.difference.mean, 5)},
                         {"low", number(t.difference.low, 5)},
                         {"high", number(t.difference.high, 5)},
                         {"p", number(t.p, 3)},
                         {"p_exact", number(t.p_exact, 3)},
                         {"n", t.difference.n}});
      }
  }
  return tests;
}

}  // namespace eg::report
