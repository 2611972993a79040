// apps/report/report.cpp - see report.h.
#include "apps/report/report.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "apps/continual/measures.h"
#include "apps/continual/statistics.h"
#include "apps/embedded.h"
#include "apps/setup.h"
#include "engine/build_info.h"
#include "engine/error.h"
#include "engine/file.h"
#include "optim/optimizer.h"

namespace eg {
namespace {

using Json = nlohmann::json;
using Values = std::vector<double>;

/// Diagnoses per method that a page holds at most; longer streams are thinned evenly.
constexpr std::size_t kMostDiagnoses = 50;

/// Flags that may differ between runs that are compared: what is compared, where it ran, what was looked at.
const std::set<std::string>& free_keys() {
  static const std::set<std::string> keys = {
      "methods",      "seeds",       kSettingsKey,   "sweep",     "sweep-seeds",  "sweep-budget", "sweep-tasks", "checkpoint-seconds",
      "workers",      "threads",     "device",       "precision", "no-graph",     "data",         "probe",
      "probe-images", "test-during", "test-earlier", "lr",        "weight-decay", "clip-norm",    "accumulate",
      "recompute"};
  return keys;
}

double rounded(double x, int digits) {
  if (x == 0.0 || !std::isfinite(x)) return x;
  const double scale = std::pow(10.0, digits - 1 - std::floor(std::log10(std::abs(x))));
  return std::round(x * scale) / scale;
}
Json number(double x, int digits = 5) { return std::isfinite(x) ? Json(rounded(x, digits)) : Json(nullptr); }
Json numbers(const Values& values, int digits = 5) {
  Json list = Json::array();
  for (const double x : values) list.push_back(number(x, digits));
  return list;
}
double value_of(const Json& j) { return j.is_number() ? j.get<double>() : std::nan(""); }
Values values_of(const Json& list) {
  Values v;
  if (list.is_array())
    for (const Json& x : list) v.push_back(value_of(x));
  return v;
}
Values per_task(const RecordedRun& run, const char* key) {
  Values v;
  for (const Json& task : run.tasks) v.push_back(value_of(task.value(key, Json(nullptr))));
  while (!v.empty() && std::isnan(v.back())) v.pop_back();
  return v;
}

/// A method of a group: its runs over seeds, from one or several folders.
struct Method {
  std::string name, settings;
  std::vector<std::pair<const RecordedRun*, std::size_t>> runs;  // with the folder's index
  bool fresh = false;
};

struct Group {
  std::vector<const RecordedFolder*> folders;
  std::vector<Method> methods;
};

std::string protocol_of(const Config& config) {
  std::string text;
  for (const auto& [key, value] : config.entries())
    if (!free_keys().contains(key)) text += key + " = " + to_toml(value) + "\n";
  return text;
}

bool starts_fresh(const std::string& method) {
  try {
    const MethodSpec spec = parse_method(method);
    return std::any_of(spec.with.begin(), spec.with.end(), [](const MethodSpec& m) { return m.name == "fresh"; });
  } catch (const Error&) {
    return false;  // a method of another version of evergrad: still a name with numbers
  }
}

/// The flags of a folder that tell its methods apart from those of the same name elsewhere.
std::string rates_of(const Config& config) {
  std::string text;
  for (const char* key : {"lr", "weight-decay", "clip-norm"})
    if (const ConfigValue* value = config.find(key)) text += cat(key, "=", to_toml(*value), " ");
  return text;
}

std::vector<Group> grouped(const std::vector<RecordedFolder>& folders) {
  std::map<std::string, std::size_t> index;
  std::vector<Group> groups;
  for (const RecordedFolder& folder : folders) {
    const auto [at, is_new] = index.try_emplace(protocol_of(folder.config), groups.size());
    if (is_new) groups.emplace_back();
    groups[at->second].folders.push_back(&folder);
  }
  for (Group& group : groups) {
    std::set<std::string> rates;
    for (const RecordedFolder* folder : group.folders) rates.insert(rates_of(folder->config));
    for (std::size_t f = 0; f < group.folders.size(); ++f) {
      const RecordedFolder& folder = *group.folders[f];
      std::map<std::string, std::string> settings;
      if (const ConfigValue* texts = folder.config.find(kSettingsKey))
        if (const auto* list = std::get_if<std::vector<ConfigScalar>>(texts)) {
          std::size_t i = 0;
          for (const RecordedRun& run : folder.runs)
            if (!settings.contains(run.method) && i < list->size())
              if (const auto* text = std::get_if<std::string>(&(*list)[i++])) settings[run.method] = *text;
        }
      for (const RecordedRun& run : folder.runs) {
        // The same method under other rates, or the same seed once more, is a line of its own.
        std::string name = run.label;
        const auto taken = [&](const Method& m) {
          return m.name == name && std::any_of(m.runs.begin(), m.runs.end(), [&](const auto& r) {
                   return r.first->seed == run.seed && r.second != f;
                 });
        };
        if (group.folders.size() > 1 &&
            (rates.size() > 1 || std::any_of(group.methods.begin(), group.methods.end(), taken)))
          name += cat(" (", folder.path.filename().string(), ")");
        auto method =
            std::find_if(group.methods.begin(), group.methods.end(), [&](const Method& m) { return m.name == name; });
        if (method == group.methods.end())
          method = group.methods.insert(
              group.methods.end(),
              {name,
               run.method != run.label ? run.method + " (chosen by the sweep)" : settings[run.method],
               {},
               starts_fresh(run.method)});
        method->runs.push_back({&run, f});
      }
    }
  }
  return groups;
}

/// Accuracies of fresh networks by seed: of the fresh method that does best.
std::map<std::uint64_t, Values> fresh_accuracy(const Group& group) {
  const Method* best = nullptr;
  double best_mean = -1.0;
  for (const Method& m : group.methods) {
    if (!m.fresh) continue;
    Values aat;
    for (const auto& [run, folder] : m.runs)
      if (run->status == "finished") aat.push_back(average_accuracy(per_task(*run, "test_accuracy")));
    if (!aat.empty() && average_accuracy(aat) > best_mean) best = &m, best_mean = average_accuracy(aat);
  }
  std::map<std::uint64_t, Values> by_seed;
  if (best)
    for (const auto& [run, folder] : best->runs) by_seed[run->seed] = per_task(*run, "test_accuracy");
  return by_seed;
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

Json interval_json(const Values& values) {
  const Interval i = mean_interval(values), b = bootstrap_interval(values);
  return {{"mean", number(i.mean, 6)},
          {"deviation", number(i.deviation, 4)},
          {"low", number(i.low, 6)},
          {"high", number(i.high, 6)},
          {"bootstrap_low", number(b.low, 6)},
          {"bootstrap_high", number(b.high, 6)},
          {"n", i.n}};
}

/// Mean over runs of lists (of lists) of numbers of equal shape; missing numbers are left out.
Json mean_of(const std::vector<const Json*>& parts) {
  if (parts.empty()) return nullptr;
  if (parts[0]->is_array()) {
    Json list = Json::array();
    for (std::size_t i = 0; i < parts[0]->size(); ++i) {
      std::vector<const Json*> inner;
      for (const Json* p : parts)
        if (p->is_array() && i < p->size()) inner.push_back(&(*p)[i]);
      list.push_back(mean_of(inner));
    }
    return list;
  }
  double sum = 0.0;
  int n = 0;
  for (const Json* p : parts)
    if (p->is_number()) sum += p->get<double>(), ++n;
  return n ? number(sum / n, 4) : Json(nullptr);
}

/// The numbers of one task's diagnosis, mean over the method's runs: kind ("blocks", "heads", ...) -> name -> values.
Json mean_diagnosis(const std::vector<const Json*>& lines, const char* kind) {
  std::map<std::string, std::vector<const Json*>> by_name;
  for (const Json* line : lines)
    if (const auto at = line->find(kind); at != line->end() && at->is_object())
      for (const auto& [name, values] : at->items()) by_name[name].push_back(&values);
  Json out = Json::object();
  for (const auto& [name, parts] : by_name) out[name] = mean_of(parts);
  return out;
}

/// Diagnosis, spectra and attention maps of a method into its first run's entry: means over its runs. A page that held
/// them for every seed would be too large to open.
void add_diagnosis(const Method& method, int depth, Json& seed) {
  std::map<std::int64_t, std::vector<const Json*>> by_task;
  for (const auto& [run, folder] : method.runs)
    for (const Json& line : run->diagnoses) by_task[line.value("task", std::int64_t(0))].push_back(&line);
  if (by_task.empty()) return;
  std::vector<std::int64_t> tasks;
  for (const auto& [task, lines] : by_task) tasks.push_back(task);
  if (tasks.size() > kMostDiagnoses) {
    std::vector<std::int64_t> some;
    for (std::size_t i = 0; i < kMostDiagnoses; ++i)
      some.push_back(tasks[i * (tasks.size() - 1) / (kMostDiagnoses - 1)]);
    tasks = some;
  }
  Json blocks = Json::object(), model = Json::object(), heads = Json::object();
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const auto& lines = by_task[tasks[i]];
    const auto place = [&](const char* kind, Json& into) {
      const Json means = mean_diagnosis(lines, kind);
      for (const auto& [name, values] : means.items()) {
        Json& list = into[name];
        if (!list.is_array()) list = Json::array();
        while (list.size() < i) list.push_back(nullptr);  // not measured at earlier tasks
        list.push_back(values);
      }
    };
    place("blocks", blocks), place("model", model), place("heads", heads);
  }
  for (auto& [name, list] : heads.items())  // [task][block x head] -> [task][block][head]
    for (Json& task : list) {
      if (!task.is_array()) continue;
      Json by_block = Json::array();
      const std::size_t per = task.size() / std::size_t(std::max(1, depth));
      for (std::size_t b = 0; b < std::size_t(depth); ++b)
        by_block.push_back(Json(
            std::vector<Json>(task.begin() + std::ptrdiff_t(b * per), task.begin() + std::ptrdiff_t((b + 1) * per))));
      task = by_block;
    }
  for (Json* all : {&blocks, &model, &heads})
    for (auto& [name, list] : all->items())
      while (list.size() < tasks.size()) list.push_back(nullptr);
  seed["diagnosis"] = {{"tasks", tasks}, {"blocks", blocks}, {"model", model}, {"heads", heads}};

  Json spectra = Json::object(), spectra_tasks = Json::array(), maps_tasks = Json::array(), maps = Json::array();
  for (const auto& [task, lines] : by_task) {
    const Json means = mean_diagnosis(lines, "spectra");
    if (!means.empty()) {
      spectra_tasks.push_back(task);
      for (const auto& [name, values] : means.items()) {
        if (name.rfind("weight.", 0) == 0)
          continue;  // their ranks are in the diagnosis; the curves would double the page
        spectra[name].push_back(values);
      }
    }
    // Maps are lists [block x image]; those of the first run are shown as they are, a mean would be nobody's attention.
    const Json& list = lines[0]->value("maps", Json());
    if (!list.is_array() || list.empty()) continue;
    const std::size_t images = list.size() / std::size_t(std::max(1, depth));
    Json by_image = Json::array();
    for (std::size_t image = 0; image < images; ++image) {
      Json by_block = Json::array();
      for (std::size_t b = 0; b < std::size_t(depth); ++b) {
        Values v = values_of(list[b * images + image]);
        by_block.push_back(numbers(v, 3));
      }
      by_image.push_back(by_block);
    }
    maps_tasks.push_back(task), maps.push_back(by_image);
  }
  if (!spectra_tasks.empty()) seed["spectra"] = {{"tasks", spectra_tasks}, {"values", spectra}};
  if (!maps_tasks.empty()) seed["maps"] = {{"tasks", maps_tasks}, {"values", maps}};
}

Json seed_json(const RecordedRun& run, std::size_t folder, const Values* fresh) {
  Json measures = Json::object();
  const auto add = [&](const char* name, const Values& values) {
    if (!values.empty()) measures[name] = numbers(values, 4);
  };
  const Values accuracy = per_task(run, "test_accuracy");
  add("task_accuracy", accuracy), add("online_accuracy", per_task(run, "online_accuracy"));
  add("train_accuracy", per_task(run, "train_accuracy")), add("train_loss", per_task(run, "train_loss"));
  add("area_under_curve", per_task(run, "area_under_curve")), add("seen_accuracy", per_task(run, "seen_accuracy"));
  if (fresh) {
    Values gap;
    for (std::size_t t = 0; t < std::min(fresh->size(), accuracy.size()); ++t) gap.push_back((*fresh)[t] - accuracy[t]);
    add("gap", gap);
  }
  Json seed = {
      {"seed", run.seed}, {"folder", folder}, {"status", run.status}, {"note", run.note}, {"measures", measures}};
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

/// What is compared between methods, as one number per run.
struct Measure {
  const char* name;
  std::function<double(const RecordedRun&)> value;
};

const std::vector<Measure>& measures() {
  const auto summary = [](const char* key) {
    return [key](const RecordedRun& r) {
      return r.summary.is_object() ? value_of(r.summary.value(key, Json())) : std::nan("");
    };
  };
  const auto mean = [](const char* key) {
    return [key](const RecordedRun& r) {
      const Values v = per_task(r, key);
      return v.empty() ? std::nan("") : average_accuracy(v);
    };
  };
  static const std::vector<Measure> all = {
      {"aat", mean("test_accuracy")},
      {"last_quarter", [](const RecordedRun& r) { return last_quarter_accuracy(per_task(r, "test_accuracy")); }},
      {"online", mean("online_accuracy")},
      {"train", mean("train_accuracy")},
      {"area_under_curve", mean("area_under_curve")},
      {"slope", [](const RecordedRun& r) { return slope(per_task(r, "test_accuracy")); }},
      {"forgetting", summary("forgetting")},
      {"backward_transfer", summary("backward_transfer")},
      {"forward_transfer", summary("forward_transfer")},
      {"images_per_second", summary("images_per_second")},
      {"wall_seconds", summary("wall_seconds")},
      {"peak_bytes", summary("peak_bytes")}};
  return all;
}

/// Values of the finished runs, by seed.
std::map<std::uint64_t, double> by_seed(const Method& m, const std::function<double(const RecordedRun&)>& value) {
  std::map<std::uint64_t, double> all;
  for (const auto& [run, folder] : m.runs) {
    if (run->status != "finished") continue;
    const double v = value(*run);
    if (std::isfinite(v)) all[run->seed] = v;
  }
  return all;
}
Values numbers_of(const std::map<std::uint64_t, double>& map) {
  Values v;
  for (const auto& [seed, value] : map) v.push_back(value);
  return v;
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
  std::vector<std::string> keys;
  for (const RecordedFolder* f : group.folders)
    for (const auto& [key, value] : f->config.entries())
      if (key != kSettingsKey && std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
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
  const std::int64_t classes = first.config.whole("classes-per-task");
  const std::string protocol = first.config.text("protocol");
  if (classes > 0 && protocol != "class-incremental") g["chance"] = 1.0 / double(classes);

  const auto fresh = fresh_accuracy(group);
  Json methods = Json::array();
  Json names = Json::array(), revisit = Json::array();
  for (const Method& m : group.methods) {
    Json entry = {{"name", m.name}, {"settings", m.settings}, {"seeds", Json::array()}};
    for (const auto& [run, folder] : m.runs) {
      const auto reference = fresh.find(run->seed);
      entry["seeds"].push_back(
          seed_json(*run, folder, m.fresh || reference == fresh.end() ? nullptr : &reference->second));
      if (run->tasks.size() > names.size()) {
        names = revisit = Json::array();
        for (const Json& task : run->tasks)
          names.push_back(task.value("name", "")), revisit.push_back(task.value("revisit", false));
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
    Json summary = Json::object();
    for (const Measure& measure : measures()) {
      const Values v = numbers_of(by_seed(m, measure.value));
      if (!v.empty()) summary[measure.name] = interval_json(v);
    }
    if (!m.fresh && !fresh.empty()) {
      Values gaps, ratios;
      for (const auto& [run, folder] : m.runs) {
        const auto reference = fresh.find(run->seed);
        if (run->status != "finished" || reference == fresh.end()) continue;
        const Values accuracy = per_task(*run, "test_accuracy");
        if (reference->second.size() == accuracy.size() && !accuracy.empty())
          gaps.push_back(average_accuracy(reference->second) - average_accuracy(accuracy));
      }
      if (!gaps.empty()) summary["gap"] = interval_json(gaps);
      for (const Method& f : group.methods) {
        if (!f.fresh) continue;
        for (const auto& [run, folder] : m.runs)
          for (const auto& [other, other_folder] : f.runs) {
            if (other->seed != run->seed || run->status != "finished" || other->status != "finished") continue;
            Values times;
            for (std::size_t t = 0; t < std::min(run->tasks.size(), other->tasks.size()); ++t) {
              const Values mine = values_of(run->tasks[t].value("test_curve", Json()));
              const Values theirs = values_of(other->tasks[t].value("test_curve", Json()));
              if (mine.size() < 2 || theirs.size() < 2) continue;
              const double level = 0.9 * theirs.back(), base = time_to(theirs, level);
              if (base > 0.0) times.push_back(time_to(mine, level) / base);
            }
            if (!times.empty()) ratios.push_back(average_accuracy(times));
          }
        break;
      }
      if (!ratios.empty()) summary["time_ratio"] = interval_json(ratios);
    }
    entry["summary"] = summary;
    methods.push_back(entry);
  }
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
  Json samples = Json::array();
  for (const Method& m : group.methods)
    for (const auto& [run, folder] : m.runs)
      if (samples.empty() && run->samples.is_object()) samples = run->samples.value("images", Json::array());
  g["notices"] = notices, g["folders"] = folders, g["config"] = config, g["differences"] = differences;
  g["methods"] = methods, g["tests"] = tests, g["task_names"] = names, g["revisit"] = revisit, g["samples"] = samples;
  return g;
}

void replace_once(std::string& page, const std::string& mark, std::string_view text) {
  const std::size_t at = page.find(mark);
  check(at != std::string::npos, Kind::internal, [&] { return cat("the report's page has no place for ", mark); });
  page.replace(at, mark.size(), text);
}

std::string csv_cell(const Json& value) {
  const std::string text = value.is_string() ? value.get<std::string>() : value.is_null() ? "" : value.dump();
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + '"';
}
void csv_row(std::string& out, std::initializer_list<Json> cells) {
  bool first = true;
  for (const Json& cell : cells) {
    if (!first) out += ',';
    out += csv_cell(cell), first = false;
  }
  out += '\n';
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

std::string report_page(const Json& data) {
  const std::string_view d3 = embedded("d3.min.js");
  check(!d3.empty(), Kind::device, [] {
    return std::string(
        "this evergrad was built without d3, which draws the report's charts; install it (Debian: "
        "node-d3) and build again, or write the tables alone with --tables DIR");
  });
  std::string page(embedded("report/page.html"));
  std::string json = data.dump(-1, ' ', false, Json::error_handler_t::replace), safe;
  for (const char c : json) {
    if (c == '<')
      safe += "\\u003c";  // so that no text of a run can end the script element
    else
      safe += c;
  }
  replace_once(page, "/*{{d3}}*/", d3);
  replace_once(page, "/*{{script}}*/", embedded("report/page.js"));
  replace_once(page, "{{data}}", safe);
  return page;
}

void write_tables(const Json& data, const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check(!error, Kind::io, [&] { return io_message("create the folder", folder, error.value()); });
  std::string summary = "group,method,measure,mean,deviation,low,high,bootstrap_low,bootstrap_high,n\n";
  std::string accuracy = "group,method,seed,status,task,measure,value\n";
  std::string tests = "group,measure,a,b,difference,low,high,p,p_exact,n\n";
  std::string diagnosis = "group,method,task,quantity,block,value\n";
  for (const Json& g : data.at("groups")) {
    for (const Json& m : g.at("methods")) {
      for (const auto& [name, s] : m.at("summary").items())
        csv_row(summary, {g["name"], m["name"], name, s["mean"], s["deviation"], s["low"], s["high"],
                          s["bootstrap_low"], s["bootstrap_high"], s["n"]});
      for (const Json& seed : m.at("seeds")) {
        for (const auto& [name, values] : seed.at("measures").items())
          for (std::size_t t = 0; t < values.size(); ++t)
            csv_row(accuracy, {g["name"], m["name"], seed["seed"], seed["status"], t + 1, name, values[t]});
        if (!seed.contains("diagnosis")) continue;
        const Json& d = seed["diagnosis"];
        for (const auto& [name, tasks] : d.at("blocks").items())
          for (std::size_t i = 0; i < tasks.size(); ++i)
            for (std::size_t b = 0; tasks[i].is_array() && b < tasks[i].size(); ++b)
              csv_row(diagnosis, {g["name"], m["name"], d["tasks"][i], name, b, tasks[i][b]});
        for (const auto& [name, tasks] : d.at("model").items())
          for (std::size_t i = 0; i < tasks.size(); ++i)
            csv_row(diagnosis, {g["name"], m["name"], d["tasks"][i], name, "", tasks[i]});
      }
    }
    for (const Json& t : g.at("tests"))
      csv_row(tests, {g["name"], t["measure"], t["a"], t["b"], t["difference"], t["low"], t["high"], t["p"],
                      t["p_exact"], t["n"]});
  }
  write_file(folder / "summary.csv", summary), write_file(folder / "accuracy.csv", accuracy);
  write_file(folder / "tests.csv", tests), write_file(folder / "diagnosis.csv", diagnosis);
  write_file(folder / "report.json", data.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace eg
