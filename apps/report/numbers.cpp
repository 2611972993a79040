// apps/report/numbers.cpp - see numbers.h.
#include "apps/report/numbers.h"

#include <cmath>

#include "apps/continual/statistics.h"

namespace eg::report {
namespace {

double rounded(double x, int digits) {
  if (x == 0.0 || !std::isfinite(x)) return x;
  const double scale = std::pow(10.0, digits - 1 - std::floor(std::log10(std::abs(x))));
  return std::round(x * scale) / scale;
}

}  // namespace

Json number(double x, int digits) { return std::isfinite(x) ? Json(rounded(x, digits)) : Json(nullptr); }
Json numbers(const Values& values, int digits) {
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

Values per_counted_task(const RecordedRun& run, const char* key) {
  const Values all = per_task(run, key);
  Values some;
  for (std::size_t t = 0; t < all.size(); ++t)
    if (!run.tasks[t].value("easy", false)) some.push_back(all[t]);
  return some;
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

}  // namespace eg::report
