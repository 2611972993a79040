// apps/report/runs.h - run folders read back: finished, still running, killed or diverged, as they are.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/run/config.h"

namespace eg {

/// One (method, seed) of a folder, from its lines of metrics.jsonl; cost and summaries from summary.json, if it is there.
struct RecordedRun {
  std::string method, status;  // "finished", "unfinished", "diverged"
  std::string label;           // what a person called the method; a sweep adds settings to `method`
  std::uint64_t seed = 0;
  std::string note;                       // why it diverged
  std::vector<nlohmann::json> tasks;      // events "task", in order
  std::vector<nlohmann::json> diagnoses;  // events "diagnosis" at the end of a task
  nlohmann::json samples;                 // event "samples": the images whose attention maps are shown
  nlohmann::json summary;                 // its object of summary.json; null while there is none
};

struct RecordedFolder {
  std::filesystem::path path;
  Config config;
  std::string stream;                 // in words; the folder's name while no summary says it
  std::vector<RecordedRun> runs;      // in the order of methods and seeds
  std::vector<std::string> problems;  // sentences: what is missing or damaged, and what was used instead
};

/// Reads the folder of an `evergrad continual`. A torn last line of the log, a missing summary and runs that have not
/// begun are noted, not fatal. Throws Error{io} when there is no config.toml or it cannot be read, Error{usage} when the
/// folder is not one of `evergrad continual`.
RecordedFolder read_run_folder(const std::filesystem::path& folder);

}  // namespace eg
