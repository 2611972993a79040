// apps/continual/shift.cpp - see shift.h.
#include "apps/continual/shift.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>

namespace eg {
namespace {

constexpr double kReturned = 0.95;

double mean(std::span<const double> v) { return std::accumulate(v.begin(), v.end(), 0.0) / double(v.size()); }

}  // namespace

double ShiftTracker::level() const { return mean(before_); }

void ShiftTracker::task_begins() {
  before_ = std::move(recent_);
  recent_.clear();
  steps_ = fell_ = returned_ = 0;
  lowest_ = 2.0;
}

void ShiftTracker::push(double accuracy) {
  if (recent_.size() == kBefore) recent_.erase(recent_.begin());
  recent_.push_back(accuracy);
  ++steps_;
  if (steps_ < std::int64_t(kWindow) || before_.empty()) return;
  const double now = mean(std::span<const double>(recent_).last(std::min(kWindow, recent_.size())));
  lowest_ = std::min(lowest_, now);
  const bool below = now < kReturned * level();
  if (below && fell_ == 0) fell_ = steps_;
  if (!below && fell_ > 0 && returned_ == 0) returned_ = steps_;
}

double ShiftTracker::dip_depth() const {
  return measured() ? level() - lowest_ : std::numeric_limits<double>::quiet_NaN();
}

double ShiftTracker::recovery_steps() const {
  if (!measured()) return std::numeric_limits<double>::quiet_NaN();
  if (fell_ == 0) return 0.0;
  return returned_ > 0 ? double(returned_) : -1.0;
}

nlohmann::json ShiftTracker::to_json() const {
  return {{"before", before_}, {"recent", recent_}, {"steps", steps_},
          {"lowest", lowest_}, {"fell", fell_},     {"returned", returned_}};
}

ShiftTracker ShiftTracker::from_json(const nlohmann::json& j) {
  ShiftTracker t;
  t.before_ = j.at("before").get<std::vector<double>>(), t.recent_ = j.at("recent").get<std::vector<double>>();
  t.steps_ = j.at("steps"), t.lowest_ = j.at("lowest"), t.fell_ = j.at("fell"), t.returned_ = j.at("returned");
  return t;
}

}  // namespace eg
