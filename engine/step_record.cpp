// engine/step_record.cpp - see step_record.h.
#include "engine/step_record.h"

#include <algorithm>
#include <cmath>

namespace eg {

void finish_norm(double sum_of_squares, StepRecord& step) {
  step.grad_norm_sq = sum_of_squares;
  step.finite = std::isfinite(sum_of_squares);
  const double norm = std::sqrt(sum_of_squares);
  step.clip_scale = step.finite && step.max_norm > 0.0 && norm > step.max_norm ? step.max_norm / norm : 1.0;
}

void advance_counts(const StepFinish& finish) {
  StepRecord& step = *finish.step;
  if (!step.finite) {
    ++step.skipped;
    ++step.skipped_in_a_row;
    return;
  }
  step.skipped_in_a_row = 0;
  for (int i = 0; i < StepRecord::kSlots; ++i)
    if (finish.slots >> i & 1u) ++step.slot[i].t;
}

}  // namespace eg
