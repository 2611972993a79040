// apps/continual/measures.h - scalar summaries of a continual run (methods.md C.3), pure functions of accuracies.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace eg {

/// R[i][j]: test accuracy on task j after finishing task i. Missing evaluations are NaN; row i may end after R[i][i],
/// and then forward transfer is not defined.
using ResultMatrix = std::vector<std::vector<double>>;

/// Mean of the accuracies on the task just learned: the primary plasticity number (AAT).
double average_accuracy(std::span<const double> task_accuracy);
/// The same over the last quarter of the tasks (at least one).
double last_quarter_accuracy(std::span<const double> task_accuracy);
double average_seen(const ResultMatrix& r, std::size_t i);  // (1/(i+1)) sum_{j<=i} R[i][j]
double average_incremental(const ResultMatrix& r);          // mean over i of average_seen
double backward_transfer(const ResultMatrix& r);            // mean_{j<T} R[T][j] - R[j][j]
double forgetting(const ResultMatrix& r);                   // mean_{j<T} max_{l<T} R[l][j] - R[T][j]
double forward_transfer(const ResultMatrix& r, std::span<const double> untrained);  // mean_{j>=2} R[j-1][j] - b[j]
/// The same from before[j] = R[j-1][j], the accuracy on each task just before it was learned.
double forward_transfer(std::span<const double> before, std::span<const double> untrained);
/// Trapezoid rule over equally spaced points, over a time of 1: the mean height of a task's learning curve.
double area_under_curve(std::span<const double> curve);
/// Least-squares slope of accuracy over the task number, per task.
double slope(std::span<const double> task_accuracy);

struct Spread {
  double mean = 0.0, deviation = 0.0;
};  // sample standard deviation; 0 for one value
Spread spread(std::span<const double> values);

}  // namespace eg
