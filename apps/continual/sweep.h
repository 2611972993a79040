// apps/continual/sweep.h - which settings of each method a sweep tries, and which of them wins.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace eg {

/// One "--sweep KEY=VALUE,VALUE". The key is an option of every update rule (lr, weight-decay), or METHOD.OPTION of the
/// methods that have this part: arrow.kappa, l2init.strength, sgd.lr.
struct SweepAxis {
  std::string part;  // empty: every method's update rule
  std::string option;
  std::vector<std::string> values;
};
/// "lr=1e-4,1e-3; arrow.kappa=0,1": one or several axes. Throws Error{usage} naming the broken part.
std::vector<SweepAxis> parse_sweep(const std::string& text);

/// The settings that a sweep tries of one method, as method texts: the product of all axes that concern it. An axis of
/// a part goes before a general one of the same option. `budget` > 0: at most so many, drawn without repetition from
/// the product by a stream of random numbers of the method's own, in grid order. At least the method itself.
std::vector<std::string> sweep_points(const std::string& method, const std::vector<SweepAxis>& axes, int budget);
/// Throws Error{usage} naming an axis that concerns no method.
void check_sweep(const std::vector<std::string>& methods, const std::vector<SweepAxis>& axes);

/// Index of the largest score; the first of equal ones; NaN (diverged) never wins unless all are.
std::size_t best_point(const std::vector<double>& scores);

}  // namespace eg
