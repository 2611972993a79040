// apps/report/numbers.h - numbers as the report's JSON holds them: rounded, null where there is none (private to
// apps/report/).
#pragma once
#include <nlohmann/json.hpp>
#include <vector>

#include "apps/report/runs.h"

namespace eg::report {

using Json = nlohmann::json;
using Values = std::vector<double>;

/// Rounded to so many significant digits; null when it is not finite.
Json number(double x, int digits = 5);
Json numbers(const Values& values, int digits = 5);
/// NaN for what is no number.
double value_of(const Json& j);
Values values_of(const Json& list);
/// One value per finished task, NaN where a task has none; shorter when the last ones have none.
Values per_task(const RecordedRun& run, const char* key);
/// The same of the tasks that count: the easy tasks of 5+1 do not.
Values per_counted_task(const RecordedRun& run, const char* key);
/// Mean, deviation, 95% interval and bootstrap interval.
Json interval_json(const Values& values);

}  // namespace eg::report
