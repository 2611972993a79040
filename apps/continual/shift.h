// apps/continual/shift.h - what a change of domain does to the accuracy of the next batches (methods.md C.2): how deep
// it dips, and how many updates it takes to come back.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace eg {

/// Follows the online accuracy (of each batch, before its update) over a stream of tasks. Bounded memory; goes into a
/// checkpoint as it is.
class ShiftTracker {
 public:
  static constexpr std::size_t kBefore = 50, kWindow = 20;

  /// The images of a new task come next.
  void task_begins();
  void push(double accuracy);

  /// True when there are 50 updates before the task (or as many as the task before it had) and 20 of its own.
  bool measured() const { return !before_.empty() && steps_ >= std::int64_t(kWindow); }
  /// Mean of the 50 updates before the task minus the least mean of 20 updates in a row within it. Negative where
  /// accuracy only rose. NaN unless measured().
  double dip_depth() const;
  /// Updates of the task until the mean of the last 20 first returns to 95 % of the level before; 0: it was never below;
  /// -1: it did not return within the task. NaN unless measured().
  double recovery_steps() const;

  nlohmann::json to_json() const;
  static ShiftTracker from_json(const nlohmann::json& j);

 private:
  double level() const;

  std::vector<double> before_;            // the last updates of the task before
  std::vector<double> recent_;            // the last updates of this one, at most kBefore
  std::int64_t steps_ = 0;                // of this task
  double lowest_ = 2.0;                   // least mean of kWindow updates so far
  std::int64_t fell_ = 0, returned_ = 0;  // updates after which the mean was first below, and then back
};

}  // namespace eg
