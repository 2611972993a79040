// apps/report/tables.cpp - the report's numbers as CSV and JSON, for other programs.
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/report/report.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

using Json = nlohmann::json;

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

void write_tables(const Json& data, const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check(!error, Kind::io, [&] { return io_message("create the folder", folder, error.value()); });
  std::string summary = "group,method,measure,mean,deviation,low,high,bootstrap_low,bootstrap_high,n\n";
  std::string accuracy = "group,method,seed,status,task,measure,value\n";
  std::string tests = "group,measure,a,b,difference,low,high,p,p_exact,n\n";
  std::string diagnosis = "group,method,task,quantity,block,value\n";
  std::string methods = "group,method,settings\n";
  std::map<std::string, int> protocols;
  for (const Json& g : data.at("groups")) {
    // Two protocols of one stream must not be averaged by whoever reads a table.
    std::string group = g.at("name");
    if (const int number = ++protocols[group]; number > 1) group += " (protocol " + std::to_string(number) + ")";
    for (const Json& m : g.at("methods")) {
      csv_row(methods, {group, m["name"], m["settings"]});
      for (const auto& [name, s] : m.at("summary").items())
        csv_row(summary, {group, m["name"], name, s["mean"], s["deviation"], s["low"], s["high"], s["bootstrap_low"],
                          s["bootstrap_high"], s["n"]});
      for (const Json& seed : m.at("seeds")) {
        for (const auto& [name, values] : seed.at("measures").items())
          for (std::size_t t = 0; t < values.size(); ++t)
            csv_row(accuracy, {group, m["name"], seed["seed"], seed["status"], t + 1, name, values[t]});
        if (!seed.contains("diagnosis")) continue;
        const Json& d = seed["diagnosis"];
        for (const auto& [name, tasks] : d.at("blocks").items())
          for (std::size_t i = 0; i < tasks.size(); ++i)
            for (std::size_t b = 0; tasks[i].is_array() && b < tasks[i].size(); ++b)
              csv_row(diagnosis, {group, m["name"], d["tasks"][i], name, b, tasks[i][b]});
        for (const auto& [name, tasks] : d.at("model").items())
          for (std::size_t i = 0; i < tasks.size(); ++i)
            csv_row(diagnosis, {group, m["name"], d["tasks"][i], name, "", tasks[i]});
      }
    }
    for (const Json& t : g.at("tests"))
      csv_row(tests, {group, t["measure"], t["a"], t["b"], t["difference"], t["low"], t["high"], t["p"], t["p_exact"],
                      t["n"]});
  }
  write_file(folder / "summary.csv", summary), write_file(folder / "accuracy.csv", accuracy);
  write_file(folder / "methods.csv", methods);
  write_file(folder / "tests.csv", tests), write_file(folder / "diagnosis.csv", diagnosis);
  write_file(folder / "report.json", data.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace eg
