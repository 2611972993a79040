// apps/report/report.h - one or many run folders as one page, and as tables for other programs.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "apps/report/runs.h"

namespace eg {

/// Everything that the page shows. Folders of one protocol form a group; nothing is averaged across groups. Intervals
/// are 95%, over seeds. `written`: a date in words.
nlohmann::json report_data(const std::vector<RecordedFolder>& folders, const std::string& title,
                           const std::string& written);
/// A self-contained HTML page: needs no network and no other file. Throws Error{device} in a build without d3.
std::string report_page(const nlohmann::json& data);
/// summary.csv (method x measure), accuracy.csv (method, seed, task, accuracy), tests.csv, diagnosis.csv, methods.csv and
/// report.json in `folder`, which is created. Throws Error{io}.
void write_tables(const nlohmann::json& data, const std::filesystem::path& folder);

}  // namespace eg
