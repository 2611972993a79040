// apps/report/measures_data.h - what is compared between methods, and over which runs (private to apps/report/).
#pragma once
#include <functional>

#include "apps/report/groups.h"

namespace eg::report {

/// What is compared between methods, as one number per run.
struct Measure {
  const char* name;
  std::function<double(const RecordedRun&)> value;
};

const std::vector<Measure>& measures();

/// Values of the finished runs, by seed.
std::map<std::uint64_t, double> by_seed(const Method& m, const std::function<double(const RecordedRun&)>& value);

/// Every measure of a method by interval_json; where the group has fresh networks (`fresh`: fresh_accuracy), also "gap",
/// their AAT minus the method's, and "time_ratio", how many times as long it takes to reach 90% of what they reach.
Json summary_json(const Group& group, const Method& m, const std::map<std::uint64_t, Values>& fresh);

/// Paired tests between all methods over the seeds they share, of AAT and the last quarter.
Json tests_json(const Group& group);

}  // namespace eg::report
