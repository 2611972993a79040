// apps/report/page.cpp - the report as one HTML file that needs no other.
#include <nlohmann/json.hpp>

#include "apps/embedded.h"
#include "apps/report/report.h"
#include "engine/error.h"

namespace eg {
namespace {

using Json = nlohmann::json;

void replace_once(std::string& page, const std::string& mark, std::string_view text) {
  const std::size_t at = page.find(mark);
  check(at != std::string::npos, Kind::internal, [&] { return cat("the report's page has no place for ", mark); });
  page.replace(at, mark.size(), text);
}

}  // namespace

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

}  // namespace eg
