// apps/continual/measures.cpp - see measures.h.
#include "apps/continual/measures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace eg {

double average_accuracy(std::span<const double> a) {
  return a.empty() ? 0.0 : std::accumulate(a.begin(), a.end(), 0.0) / double(a.size());
}

double last_quarter_accuracy(std::span<const double> a) {
  if (a.empty()) return 0.0;
  return average_accuracy(a.last(std::max<std::size_t>(1, a.size() / 4)));
}

double average_seen(const ResultMatrix& r, std::size_t i) { return average_accuracy(std::span(r[i]).first(i + 1)); }

double average_incremental(const ResultMatrix& r) {
  double sum = 0.0;
  for (std::size_t i = 0; i < r.size(); ++i) sum += average_seen(r, i);
  return r.empty() ? 0.0 : sum / double(r.size());
}

double backward_transfer(const ResultMatrix& r) {
  const std::size_t tasks = r.size();
  if (tasks < 2) return 0.0;
  double sum = 0.0;
  for (std::size_t j = 0; j + 1 < tasks; ++j) sum += r[tasks - 1][j] - r[j][j];
  return sum / double(tasks - 1);
}

double forgetting(const ResultMatrix& r) {
  const std::size_t tasks = r.size();
  if (tasks < 2) return 0.0;
  double sum = 0.0;
  for (std::size_t j = 0; j + 1 < tasks; ++j) {
    double best = r[j][j];
    for (std::size_t l = 0; l + 1 < tasks; ++l)
      if (j < r[l].size() && r[l][j] > best) best = r[l][j];  // what was not evaluated (NaN) is no best
    sum += best - r[tasks - 1][j];
  }
  return sum / double(tasks - 1);
}

double forward_transfer(const ResultMatrix& r, std::span<const double> untrained) {
  const std::size_t tasks = r.size();
  if (tasks < 2) return 0.0;
  double sum = 0.0;
  for (std::size_t j = 1; j < tasks; ++j) sum += r[j - 1][j] - untrained[j];
  return sum / double(tasks - 1);
}

double forward_transfer(std::span<const double> before, std::span<const double> untrained) {
  const std::size_t tasks = std::min(before.size(), untrained.size());
  if (tasks < 2) return 0.0;
  double sum = 0.0;
  for (std::size_t j = 1; j < tasks; ++j) sum += before[j] - untrained[j];
  return sum / double(tasks - 1);
}

double area_under_curve(std::span<const double> curve) {
  if (curve.size() < 2) return average_accuracy(curve);
  double sum = 0.0;
  for (std::size_t i = 1; i < curve.size(); ++i) sum += (curve[i - 1] + curve[i]) / 2;
  return sum / double(curve.size() - 1);
}

double slope(std::span<const double> a) {
  const double n = double(a.size());
  if (a.size() < 2) return 0.0;
  const double mean_x = (n - 1) / 2, mean_y = average_accuracy(a);
  double xy = 0.0, xx = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    xy += (double(i) - mean_x) * (a[i] - mean_y);
    xx += (double(i) - mean_x) * (double(i) - mean_x);
  }
  return xy / xx;
}

Spread spread(std::span<const double> v) {
  Spread s{average_accuracy(v), 0.0};
  if (v.size() < 2) return s;
  for (const double x : v) s.deviation += (x - s.mean) * (x - s.mean);
  s.deviation = std::sqrt(s.deviation / double(v.size() - 1));
  return s;
}

}  // namespace eg
