// tests/optim/test_schedule.cpp - the learning rate over a task.
#include "optim/schedule.h"

#include <cmath>
#include <utility>

#include "tests/optim/dense.h"

using namespace eg;
using namespace eg::test;

TEST_CASE("schedules: exact factors") {
  const double root = std::sqrt(0.5);  // cos(pi/4)
  CHECK(schedule_factor(Schedule::constant, 7, 10) == 1.0);
  CHECK(schedule_factor(Schedule::linear, 0, 10) == 1.0);
  CHECK(schedule_factor(Schedule::linear, 5, 10) == 0.5);
  CHECK(schedule_factor(Schedule::linear, 10, 10) == 0.0);
  CHECK(schedule_factor(Schedule::linear, 99, 10) == 0.0);
  CHECK(schedule_factor(Schedule::cosine, 0, 10) == 1.0);
  for (const auto& [step, factor] :
       {std::pair{2, 0.5 * (1 + root)}, {4, 0.5}, {6, 0.5 * (1 - root)}, {8, 0.0}, {99, 0.0}})
    CHECK(std::abs(schedule_factor(Schedule::cosine, step, 8) - factor) <= 4 * 0x1p-53);
  for (const Schedule s : {Schedule::constant, Schedule::linear, Schedule::cosine}) {
    for (int step = 0; step < 4; ++step) CHECK(schedule_factor(s, step, 10, 4) == (step + 1) / 4.0);
    CHECK(schedule_factor(s, 4, 10, 4) == 1.0);
    CHECK(schedule_factor(s, 0, 1) == 1.0);
    CHECK(schedule_factor(s, 0, 0) == 1.0);       // a task without steps
    CHECK(schedule_factor(s, 9, 10, 20) == 0.5);  // a warm-up longer than the task
  }
  CHECK(schedule_factor(Schedule::linear, 7, 10, 4) == 0.5);
  CHECK(std::abs(schedule_factor(Schedule::cosine, 7, 10, 4) - 0.5) <= 4 * 0x1p-53);
  CHECK(parse_schedule("constant") == Schedule::constant);
  CHECK(parse_schedule("linear") == Schedule::linear);
  CHECK(parse_schedule("cosine") == Schedule::cosine);
  CHECK(contains(usage_error([] { parse_schedule("cosin"); }), "constant, linear or cosine"));
}

TEST_CASE("schedules: the factor multiplies every method's rates") {
  for (const Device d : kBoth)
    for (const char* method : {"sgd:momentum=0", "adamw", "arrow", "arrow:paper:warmup=none"}) {
      CAPTURE(method);
      Rig full(d, method, {{.start = {0.0, 0.0}}}, 0.5), half(d, method, {{.start = {0.0, 0.0}}}, 0.5);
      full.step(Values{1, 2}), half.step(std::vector<Values>{{1, 2}}, 0.5);
      CHECK(half.weights() == scaled(full.weights(), 0.5));  // a power of two: exact
      CHECK(full.weights()[0] < 0.0);
    }
}
