// optim/schedule.cpp - see schedule.h.
#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/error.h"

namespace eg {

Schedule parse_schedule(std::string_view text) {
  if (text == "constant") return Schedule::constant;
  if (text == "linear") return Schedule::linear;
  if (text == "cosine") return Schedule::cosine;
  fail(Kind::usage, cat("there is no schedule '", text, "'; choose constant, linear or cosine"));
}

double schedule_factor(Schedule schedule, std::int64_t step, std::int64_t steps, std::int64_t warmup_steps) {
  if (step < warmup_steps) return double(step + 1) / double(warmup_steps);
  const double span = double(std::max<std::int64_t>(1, steps - warmup_steps));
  const double done = std::clamp(double(step - warmup_steps) / span, 0.0, 1.0);
  switch (schedule) {
    case Schedule::constant: return 1.0;
    case Schedule::linear: return 1.0 - done;
    case Schedule::cosine: return 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  }
  return 1.0;
}

}  // namespace eg
