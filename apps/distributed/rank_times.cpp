// apps/distributed/rank_times.cpp - see rank_times.h.
#include "apps/distributed/rank_times.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "engine/collectives/wait_time.h"
#include "engine/error.h"

namespace eg {
namespace {

std::string tenths(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

}  // namespace

std::string straggler(const std::vector<RankTime>& times) {
  if (times.size() < 2) return "";
  const auto less = [](const RankTime& a, const RankTime& b) { return a.own() < b.own(); };
  std::vector<RankTime> sorted = times;
  std::sort(sorted.begin(), sorted.end(), less);
  const double median = sorted[(sorted.size() - 1) / 2].own();  // of two, the faster
  const auto slow = std::max_element(times.begin(), times.end(), less);
  if (slow->own() < 1.2 * median || slow->own() < median + 0.5) return "";
  return cat("rank ", slow - times.begin(), " of ", times.size(), " holds the others up: it needed ",
             tenths(slow->own()), " of its own (", tenths(slow->data), " of them for its images), the median rank ",
             tenths(median));
}

RankTimes::RankTimes(std::shared_ptr<Collectives> ranks, const std::filesystem::path& run_folder)
    : ranks_(std::move(ranks)) {
  if (ranks_->size() > 1 && ranks_->rank() == 0) log_ = JsonLog(run_folder / "ranks.jsonl");
}

void RankTimes::begin(double data_seconds) {
  start_ = std::chrono::steady_clock::now(), data_ = data_seconds, others_ = seconds_in_collectives(*ranks_);
  sent_ = ranks_->bytes_sent();
}

std::string RankTimes::end(double data_seconds, LogLine line) {
  const std::size_t n = std::size_t(ranks_->size()), me = std::size_t(ranks_->rank());
  if (n == 1) return "";
  std::vector<double> all(4 * n, 0.0);
  all[me] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  all[n + me] = data_seconds - data_;
  all[2 * n + me] = seconds_in_collectives(*ranks_) - others_;
  all[3 * n + me] = double(ranks_->bytes_sent() - sent_);
  ranks_->sum_on_host(all);
  for (double& seconds : all) seconds = std::round(1e4 * seconds) / 1e4;  // for people
  std::vector<RankTime> times;
  std::vector<double> compute;
  for (std::size_t r = 0; r < n; ++r) {
    times.push_back({all[r], all[n + r], all[2 * n + r]});
    compute.push_back(std::round(1e4 * (times[r].own() - times[r].data)) / 1e4);
  }
  const std::span<const double> numbers(all);
  line.add("compute_s", compute).add("data_s", numbers.subspan(n, n)).add("wait_s", numbers.subspan(2 * n, n));
  line.add("sent_bytes", numbers.subspan(3 * n, n));
  std::string why = straggler(times);
  if (!why.empty()) line.add("straggler", why);
  log_.write(line);
  return why;
}

}  // namespace eg
