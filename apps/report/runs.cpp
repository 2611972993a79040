// apps/report/runs.cpp - see runs.h.
#include "apps/report/runs.h"

#include <algorithm>
#include <fstream>

#include "apps/options.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

namespace fs = std::filesystem;

/// The runs that a configuration asks for, in order. A sweep's chosen settings replace its methods.
std::vector<RecordedRun> expected_runs(const Config& config, const fs::path& folder) {
  std::vector<std::string> methods = split_list(config.text("methods"));
  const std::vector<std::string> labels = methods;
  if (fs::exists(folder / "sweep.json")) {
    const auto sweep = nlohmann::json::parse(read_file(folder / "sweep.json"), nullptr, false);
    if (!sweep.is_discarded())
      for (const auto& m : sweep.value("methods", nlohmann::json::array()))
        std::replace(methods.begin(), methods.end(), m.value("method", ""), m.value("chosen", ""));
  }
  std::vector<RecordedRun> runs;
  for (std::size_t m = 0; m < methods.size(); ++m)
    for (const std::uint64_t seed : parse_seeds(config.text("seeds"))) {
      RecordedRun& r = runs.emplace_back();
      r.method = methods[m], r.label = labels[m], r.seed = seed, r.status = "unfinished";
    }
  return runs;
}

RecordedRun* find(std::vector<RecordedRun>& runs, const nlohmann::json& j) {
  const std::string method = j.value("method", "");
  const std::uint64_t seed = j.value("seed", std::uint64_t(0));
  for (RecordedRun& r : runs)
    if (r.method == method && r.seed == seed) return &r;
  return nullptr;
}

void read_log(const fs::path& file, RecordedFolder& folder) {
  std::ifstream in(file);
  std::size_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    auto j = nlohmann::json::parse(line, nullptr, false);
    if (j.is_discarded() || !j.is_object()) {
      folder.problems.push_back(cat(file.string(), ":", number, ": not a JSON object (a line cut short?); left out"));
      continue;
    }
    RecordedRun* run = find(folder.runs, j);
    if (run == nullptr) continue;
    const std::string event = j.value("event", "");
    if (event == "task")
      run->tasks.push_back(std::move(j));
    else if (event == "diagnosis" && !j.contains("step"))
      run->diagnoses.push_back(std::move(j));
    else if (event == "samples")
      run->samples = std::move(j);
    else if (event == "diverged")
      run->status = "diverged", run->note = j.value("why", "");
  }
}

void read_summary(const fs::path& file, RecordedFolder& folder) {
  if (!fs::exists(file)) return;
  const auto summary = nlohmann::json::parse(read_file(file), nullptr, false);
  if (summary.is_discarded() || !summary.is_object()) {
    folder.problems.push_back(cat(file.string(), " cannot be read as JSON; accuracies come from metrics.jsonl alone"));
    return;
  }
  folder.stream = summary.value("stream", folder.stream);
  for (const auto& result : summary.value("results", nlohmann::json::array())) {
    RecordedRun* run = find(folder.runs, result);
    if (run == nullptr) continue;
    run->summary = result;
    if (result.value("diverged", false))
      run->status = "diverged", run->note = result.value("note", run->note);
    else if (std::int64_t(run->tasks.size()) == std::int64_t(result.at("task_accuracy").size()))
      run->status = "finished";
  }
}

}  // namespace

RecordedFolder read_run_folder(const fs::path& path) {
  check(fs::exists(path / "config.toml"), Kind::io, [&] {
    return cat(path.string(), " holds no config.toml, so it is no run folder; give the folder that --out named");
  });
  RecordedFolder folder;
  folder.path = path;
  folder.stream = path.filename().string();
  folder.config = Config::read(path / "config.toml");
  check(folder.config.find("protocol") != nullptr, Kind::usage, [&] {
    return cat(path.string(), " is not a run of 'evergrad continual'; reports are made of streams of tasks");
  });
  folder.runs = expected_runs(folder.config, path);
  const bool farm_unfinished = !fs::exists(path / "metrics.jsonl") && fs::exists(path / "runs");
  std::vector<fs::path> parts{path};
  if (farm_unfinished) {  // runs of --jobs that are not all finished lie in folders of their own
    parts.clear();
    for (const auto& entry : fs::directory_iterator(path / "runs"))
      if (entry.is_directory()) parts.push_back(entry.path());
    std::sort(parts.begin(), parts.end());
  }
  for (const fs::path& part : parts)
    read_log(part / "metrics.jsonl", folder), read_summary(part / "summary.json", folder);
  // A later start may have written a task's line twice in a log that nobody cut; the last one counts.
  for (RecordedRun& run : folder.runs) {
    std::vector<nlohmann::json> ordered;
    for (auto& task : run.tasks) {
      const auto number = task.value("task", std::int64_t(0));
      if (number < 1 || number > std::int64_t(ordered.size()) + 1) continue;
      if (number <= std::int64_t(ordered.size())) ordered.resize(std::size_t(number - 1));
      ordered.push_back(std::move(task));
    }
    run.tasks = std::move(ordered);
  }
  return folder;
}

}  // namespace eg
