// apps/report/groups.cpp - see groups.h.
#include "apps/report/groups.h"

#include <algorithm>
#include <set>

#include "apps/continual/measures.h"
#include "apps/report/names.h"
#include "apps/setup.h"
#include "engine/error.h"
#include "optim/optimizer.h"

namespace eg::report {
namespace {

/// Flags that may differ between runs that are compared: what is compared, where it ran, what was looked at.
const std::set<std::string>& free_keys() {
  static const std::set<std::string> keys = {"methods",         "seeds",         kSettingsKey,  "sweep",
                                             "sweep-seeds",     "sweep-budget",  "sweep-tasks", "checkpoint-seconds",
                                             "workers",         "threads",       "device",      "precision",
                                             "no-graph",        "data",          "probe",       "probe-images",
                                             "test-during",     "test-earlier",  "lr",          "weight-decay",
                                             "clip-norm",       "accumulate",    "recompute",   "kernels",
                                             kKernelChoicesKey, kKernelDeviceKey};
  return keys;
}

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

/// What tells folders of one group apart: their last name, the whole path where two share it, a number where one is given
/// twice.
std::vector<std::string> names_of(const std::vector<const RecordedFolder*>& folders) {
  std::map<std::string, int> same_name, seen;
  for (const RecordedFolder* folder : folders) ++same_name[folder->path.filename().string()];
  std::vector<std::string> names;
  for (const RecordedFolder* folder : folders) {
    std::string name = folder->path.filename().string();
    if (same_name[name] > 1) name = folder->path.string();
    if (const int times = ++seen[name]; times > 1) name += cat(" #", times);
    names.push_back(name);
  }
  return names;
}

}  // namespace

std::vector<Group> grouped(const std::vector<RecordedFolder>& folders) {
  std::map<std::string, std::size_t> index;
  std::vector<Group> groups;
  for (const RecordedFolder& folder : folders) {
    const auto [at, is_new] = index.try_emplace(protocol_of(folder.config), groups.size());
    if (is_new) groups.emplace_back();
    groups[at->second].folders.push_back(&folder);
  }
  for (Group& group : groups) {
    std::vector<std::string> labels;
    for (const RecordedFolder* folder : group.folders)
      for (const RecordedRun& run : folder->runs) labels.push_back(run.label);
    const std::vector<std::string> short_labels = short_names(labels);
    std::map<std::string, std::string> names;
    for (std::size_t i = 0; i < labels.size(); ++i) names[labels[i]] = short_labels[i];
    const std::vector<std::string> folder_names = names_of(group.folders);
    std::set<std::string> rates;
    for (const RecordedFolder* folder : group.folders) rates.insert(rates_of(folder->config));
    for (std::size_t f = 0; f < group.folders.size(); ++f) {
      const RecordedFolder& folder = *group.folders[f];
      const ConfigValue* sweep = folder.config.find("sweep");
      const auto* swept = sweep ? std::get_if<std::vector<ConfigScalar>>(sweep) : nullptr;
      const bool is_swept = swept && !swept->empty();
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
        std::string name = names[run.label];
        const auto taken = [&](const Method& m) {
          return m.name == name && std::any_of(m.runs.begin(), m.runs.end(), [&](const auto& r) {
                   return r.first->seed == run.seed && r.second != f;
                 });
        };
        if (group.folders.size() > 1 &&
            (rates.size() > 1 || std::any_of(group.methods.begin(), group.methods.end(), taken)))
          name += cat(" (", folder_names[f], ")");
        auto method =
            std::find_if(group.methods.begin(), group.methods.end(), [&](const Method& m) { return m.name == name; });
        if (method == group.methods.end())
          method = group.methods.insert(group.methods.end(),
                                        {name,
                                         run.method != run.label ? run.method + " (chosen by the sweep)"
                                         : is_swept              ? "not chosen yet: the sweep has not come to its end"
                                         : name != run.label     ? cat(run.method, ": ", settings[run.method])
                                                                 : settings[run.method],
                                         {},
                                         starts_fresh(run.method)});
        method->runs.push_back({&run, f});
      }
    }
  }
  return groups;
}

std::map<std::uint64_t, Values> fresh_accuracy(const Group& group) {
  const Method* best = nullptr;
  double best_mean = -1.0;
  for (const Method& m : group.methods) {
    if (!m.fresh) continue;
    Values aat;
    for (const auto& [run, folder] : m.runs)
      if (run->status == "finished") aat.push_back(average_accuracy(per_counted_task(*run, "test_accuracy")));
    if (!aat.empty() && average_accuracy(aat) > best_mean) best = &m, best_mean = average_accuracy(aat);
  }
  std::map<std::uint64_t, Values> by_seed;
  if (best)
    for (const auto& [run, folder] : best->runs) by_seed[run->seed] = per_task(*run, "test_accuracy");
  return by_seed;
}

}  // namespace eg::report
