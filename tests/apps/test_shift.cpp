// tests/apps/test_shift.cpp - dip and recovery after a change of domain, against sequences worked out by hand.
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/continual/shift.h"
#include "apps/continual/summary.h"
#include "tests/apps/command.h"

using namespace eg;

namespace {
void push(ShiftTracker& t, double value, int times) {
  for (int i = 0; i < times; ++i) t.push(value);
}
}  // namespace

TEST_CASE("shift: the dip is the level of 50 updates before minus the least mean of 20 after; recovery at 95 %") {
  ShiftTracker t;
  t.task_begins();
  push(t, 0.2, 100), push(t, 0.8, 50);  // what is older than 50 updates does not count
  CHECK_FALSE(t.measured());            // nothing came before the first task
  t.task_begins();
  push(t, 0.4, 20);
  CHECK(t.dip_depth() == doctest::Approx(0.4));
  CHECK(t.recovery_steps() == -1.0);
  // The mean of 20 is 0.4 + 0.4 k/20 after k updates at 0.8; it reaches 0.95 x 0.8 = 0.76 at k = 18.
  push(t, 0.8, 17);
  CHECK(t.recovery_steps() == -1.0);
  push(t, 0.8, 1);
  CHECK(t.recovery_steps() == 38.0);
  push(t, 0.0, 5);  // falls again: the first return and the deepest dip are told
  CHECK(t.recovery_steps() == 38.0);
  push(t, 0.0, 15);
  CHECK(t.dip_depth() == doctest::Approx(0.8));
}

TEST_CASE("shift: no dip, a short task, and a task after a short one") {
  ShiftTracker t;
  t.task_begins();
  push(t, 0.5, 30);
  t.task_begins();
  push(t, 0.6, 19);
  CHECK(std::isnan(t.dip_depth()));  // fewer than 20 updates say nothing
  CHECK(std::isnan(t.recovery_steps()));
  push(t, 0.6, 1);
  CHECK(t.dip_depth() == doctest::Approx(-0.1));
  CHECK(t.recovery_steps() == 0.0);
  const ShiftTracker same = ShiftTracker::from_json(nlohmann::json::parse(t.to_json().dump()));
  CHECK(same.dip_depth() == t.dip_depth());
}

TEST_CASE("shift: a tracker that was saved in the middle goes on to the same numbers") {
  ShiftTracker whole, cut;
  for (ShiftTracker* t : {&whole, &cut}) t->task_begins(), push(*t, 0.7, 60), t->task_begins();
  for (int i = 0; i < 60; ++i) {
    const double a = 0.3 + 0.01 * i;
    whole.push(a), cut.push(a);
    if (i % 7 == 3) cut = ShiftTracker::from_json(nlohmann::json::parse(cut.to_json().dump()));
  }
  CHECK(cut.dip_depth() == whole.dip_depth());
  CHECK(cut.recovery_steps() == whole.recovery_steps());
  CHECK(whole.recovery_steps() > 0.0);
}

TEST_CASE("summary: easy tasks are left out of every average, and gaps survive a round trip") {
  RunResult r;
  r.method = "adamw";
  r.task_accuracy = {0.5, 1.0, 0.7, 1.0, 0.6, 1.0};
  r.easy = {2, 4, 6};
  r.matrix = {{0.5},
              {0.4, 1.0},
              {0.3, 0.9, 0.7},
              {0.3, 0.9, 0.6, 1.0},
              {0.1, 0.0, 0.5, 0.0, 0.6},
              {0.1, 0.0, 0.4, 0.0, 0.6, 1.0}};
  r.dip = {std::nan(""), 0.25, 0.15}, r.recovery = {std::nan(""), -1.0, 12.0};
  const nlohmann::json j = to_json(r);
  CHECK(j.at("aat").get<double>() == doctest::Approx(0.6));
  CHECK(j.at("last_quarter").get<double>() == doctest::Approx(0.6));
  CHECK(j.at("slope_per_task").get<double>() == doctest::Approx(0.05));
  // Of the hard tasks alone: rows 1, 3, 5, columns 1, 3, 5.
  CHECK(j.at("backward_transfer").get<double>() == doctest::Approx((0.1 - 0.5 + 0.5 - 0.7) / 2));
  CHECK(j.at("dip_depth").get<double>() == doctest::Approx(0.2));
  CHECK(j.at("dip_depths")[0].is_null());
  const RunResult back = result_from_json(nlohmann::json::parse(j.dump()));
  CHECK(back.easy == r.easy);
  CHECK(std::isnan(back.recovery[0]));
  CHECK(back.recovery[1] == -1.0);
}
