// apps/report/data.cpp - everything that the report's page shows, as one JSON object.
#include <algorithm>
#include <map>

#include "apps/report/diagnosis_data.h"
#include "apps/report/measures_data.h"
#include "apps/report/report.h"
#include "apps/setup.h"
#include "engine/build_info.h"
#include "engine/error.h"

namespace eg {
namespace {

using namespace report;

Json seed_json(const RecordedRun& run, std::size_t folder, const Values* fresh) {
  Json measures = Json::object();
  const auto add = [&](const char* name, const Values& values) {
    if (!values.empty()) measures[name] = numbers(values, 4);
  };
  const Values accuracy = per_task(run, "test_accuracy");
  add("task_accuracy", accuracy), add("online_accuracy", per_task(run, "online_accuracy"));
  add("train_accuracy", per_task(run, "train_accuracy")), add("train_loss", per_task(run, "train_loss"));
  add("dip_depth", per_task(run, "dip_depth")), add("recovery_steps", per_task(run, "recovery_steps"));
  add("area_under_curve", per_task(run, "area_under_curve")), add("seen_accuracy", per_task(run, "seen_accuracy"));
  if (fresh) {
    Values gap;
    for (std::size_t t = 0; t < std::min(fresh->size(), accuracy.size()); ++t) gap.push_back((*fresh)[t] - accuracy[t]);
    add("gap", gap);
  }
  Json seed = {
      {"seed", run.seed}, {"folder", folder}, {"status", run.status}, {"note", run.note}, {"measures", measures}};
  Json easy = Json::array();
  for (const Json& task : run.tasks) easy.push_back(task.value("easy", false));
  if (std::find(easy.begin(), easy.end(), Json(true)) != easy.end()) seed["easy"] = easy;
  Json curves = Json::array();
  for (const Json& task : run.tasks)
    if (task.contains("test_curve")) curves.push_back(numbers(values_of(task["test_curve"]), 4));
  if (!curves.empty()) seed["curves"] = curves;
  if (!run.summary.is_null())
    for (const char* key : {"images_per_second", "wall_seconds", "peak_bytes"})
      if (run.summary.contains(key) && run.summary[key] != 0) seed[key] = run.summary[key];
  if (!run.tasks.empty())
    seed["updates"] = run.tasks.back().value("updates", 0), seed["skipped"] = run.tasks.back().value("skipped", 0);
  std::map<std::string, Values> scalars;
  for (const Json& task : run.tasks)
    for (const auto& [key, value] : task.items())
      if (key.rfind("optimizer.", 0) == 0) scalars[key.substr(10)].push_back(value_of(value));
  for (const auto& [key, values] : scalars) seed["scalars"][key] = numbers(values, 4);
  return seed;
}

/// Settings that all folders of a group share into `config`, the others into `differences`.
void split_config(const Group& group, Json& config, Json& differences) {
  std::vector<std::string> keys;
  for (const RecordedFolder* f : group.folders)
    for (const auto& [key, value] : f->config.entries())
      if (key != kSettingsKey && key != kKernelChoicesKey && std::find(keys.begin(), keys.end(), key) == keys.end())
        keys.push_back(key);
  for (const std::string& key : keys) {
    Json values = Json::array();
    bool same = true;
    for (const RecordedFolder* f : group.folders) {
      const ConfigValue* other = f->config.find(key);
      values.push_back(other ? to_toml(*other) : "");
      same &= values.back() == values[0];
    }
    if (same)
      config.push_back({key, values[0]});
    else
      differences.push_back({{"key", key}, {"values", values}});
  }
}

Json group_json(const Group& group) {
  const RecordedFolder& first = *group.folders[0];
  const int depth = int(first.config.whole("depth"));
  std::size_t tasks = std::size_t(first.config.whole("tasks"));
  const bool two = first.config.find("then") && !first.config.text("then").empty();
  tasks *= two ? 2 : 1;
  Json g = {{"name", first.stream}, {"tasks", tasks}};
  Json notices = Json::array(), folders = Json::array(), config = Json::array(), differences = Json::array();
  for (const RecordedFolder* f : group.folders) folders.push_back(f->path.string());
  split_config(group, config, differences);
  const std::int64_t classes = first.config.whole("classes-per-task");
  const std::string protocol = first.config.text("protocol");
  if (classes > 0 && protocol != "class-incremental" && protocol != "5+1" && protocol != "groups")
    g["chance"] = 1.0 / double(classes);

  const auto fresh = fresh_accuracy(group);
  Json methods = Json::array();
  Json names = Json::array(), revisit = Json::array(), easy = Json::array();
  for (const Method& m : group.methods) {
    Json entry = {{"name", m.name}, {"settings", m.settings}, {"seeds", Json::array()}};
    for (const auto& [run, folder] : m.runs) {
      const auto reference = fresh.find(run->seed);
      entry["seeds"].push_back(
          seed_json(*run, folder, m.fresh || reference == fresh.end() ? nullptr : &reference->second));
      if (run->tasks.size() > names.size()) {
        names = revisit = easy = Json::array();
        for (const Json& task : run->tasks) {
          names.push_back(task.value("name", "")), revisit.push_back(task.value("revisit", false));
          easy.push_back(task.value("easy", false));
        }
      }
      if (run->status == "unfinished")
        notices.push_back(run->tasks.empty()
                              ? cat(m.name, ", seed ", run->seed, ": not begun")
                              : cat(m.name, ", seed ", run->seed, ": interrupted or still running, ", run->tasks.size(),
                                    " of ", tasks, " tasks; left out of means over the stream"));
      if (run->status == "diverged")
        notices.push_back(cat(m.name, ", seed ", run->seed, ": diverged in task ", run->tasks.size() + 1, ": ",
                              run->note, "; left out of means over the stream"));
    }
    add_diagnosis(m, depth, entry["seeds"][0]);
    entry["summary"] = summary_json(group, m, fresh);
    methods.push_back(entry);
  }
  Json samples = Json::array();
  for (const Method& m : group.methods)
    for (const auto& [run, folder] : m.runs)
      if (samples.empty() && run->samples.is_object()) samples = run->samples.value("images", Json::array());
  g["notices"] = notices, g["folders"] = folders, g["config"] = config, g["differences"] = differences;
  g["methods"] = methods, g["tests"] = tests_json(group), g["task_names"] = names, g["revisit"] = revisit,
  g["samples"] = samples;
  if (std::find(easy.begin(), easy.end(), Json(true)) != easy.end()) {
    g["easy"] = easy;
    g["notices"].push_back("easy tasks are left out of the chart over tasks, and count in no mean, slope or test");
  }
  return g;
}

}  // namespace

Json report_data(const std::vector<RecordedFolder>& folders, const std::string& title, const std::string& written) {
  Json data = {{"title", title}, {"evergrad", build_info().version}, {"written", written}};
  Json problems = Json::array(), groups = Json::array();
  for (const RecordedFolder& folder : folders)
    for (const std::string& problem : folder.problems) problems.push_back(problem);
  const std::vector<Group> all = grouped(folders);
  if (all.size() > 1)
    problems.push_back(
        cat("these folders hold ", all.size(),
            " different protocols, each with a section of its own: nothing is averaged or compared across them"));
  for (const Group& group : all) groups.push_back(group_json(group));
  data["problems"] = problems, data["groups"] = groups;
  return data;
}

}  // namespace eg
