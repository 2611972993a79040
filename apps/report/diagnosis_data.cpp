// apps/report/diagnosis_data.cpp - see diagnosis_data.h.
#include "apps/report/diagnosis_data.h"

#include <algorithm>

namespace eg::report {
namespace {

/// Diagnoses per method that a page holds at most; longer streams are thinned evenly.
constexpr std::size_t kMostDiagnoses = 50;

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
  return n ? number(sum / n, 3) : Json(nullptr);
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

}  // namespace

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
        by_block.push_back(numbers(v, 2));  // shades of a picture
      }
      by_image.push_back(by_block);
    }
    maps_tasks.push_back(task), maps.push_back(by_image);
  }
  if (!spectra_tasks.empty()) seed["spectra"] = {{"tasks", spectra_tasks}, {"values", spectra}};
  if (!maps_tasks.empty()) seed["maps"] = {{"tasks", maps_tasks}, {"values", maps}};
}

}  // namespace eg::report
