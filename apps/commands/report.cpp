// apps/commands/report.cpp - `evergrad report`: run folders as one page.
#include <ctime>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/report/report.h"
#include "apps/run/table.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

struct ReportOptions {
  std::vector<std::string> runs;
  std::string out, tables, title;
};

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M", std::localtime(&now));
  return text;
}

int run_report(const ReportOptions& o) {
  std::vector<RecordedFolder> folders;
  for (const std::string& run : o.runs) folders.push_back(read_run_folder(run));
  const std::string title = !o.title.empty()     ? o.title
                            : o.runs.size() == 1 ? o.runs[0]
                                                 : cat(o.runs.size(), " run folders");
  const nlohmann::json data = report_data(folders, title, now_text());
  if (!o.tables.empty()) {
    write_tables(data, o.tables);
    std::cout << "Tables: " << o.tables << '\n';
  }
  if (o.out.empty() && !o.tables.empty()) return 0;
  const std::filesystem::path file =
      o.out.empty() ? std::filesystem::path(o.runs[0]) / "report.html" : std::filesystem::path(o.out);
  const std::string page = report_page(data);
  write_file(file, page);
  for (const auto& group : data.at("groups"))
    for (const auto& notice : group.at("notices")) std::cout << notice.get<std::string>() << '\n';
  for (const auto& problem : data.at("problems")) std::cout << problem.get<std::string>() << '\n';
  std::cout << "Report: " << file.string() << " (" << fixed(double(page.size()) / 1e6, 1)
            << " MB; opens in any browser, without a network)\n";
  return 0;
}

}  // namespace

void add_report_command(CLI::App& app, std::function<int()>& run) {
  auto o = std::make_shared<ReportOptions>();
  auto* sub =
      app.add_subcommand("report", "One page with charts, tests and the diagnosis, from one or many run folders");
  sub->description(
      "Writes one self-contained HTML page about runs of evergrad continual: accuracy over tasks with intervals,\n"
      "paired tests between methods, heat maps of every diagnosis, cost, configuration. Runs that are unfinished or\n"
      "diverged are shown as such; folders of different protocols are never averaged. Example:\n\n"
      "  evergrad report runs/first runs/second --out report.html");
  sub->add_option("runs", o->runs, "Run folders (--out of evergrad continual)")->required();
  sub->add_option("--out", o->out, "The page (default: report.html in the first folder)");
  sub->add_option(
      "--tables", o->tables,
      "Also write summary.csv, accuracy.csv, tests.csv, diagnosis.csv, methods.csv and report.json into this folder "
      "(without --out: only these)");
  sub->add_option("--title", o->title, "Title of the page");
  sub->callback([o, &run] { run = [o] { return run_report(*o); }; });
}

}  // namespace eg
