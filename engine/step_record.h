// engine/step_record.h - the bookkeeping of one training step that both host devices share.
#pragma once
#include "engine/kernels_optim.h"

namespace eg {

/// Writes the gradient's sum of squares, whether it is finite, and the clip factor min(1, max_norm / norm).
void finish_norm(double sum_of_squares, StepRecord& step);
/// Counts the step: an update in every slot whose bit is set, or a skipped one when the gradient was not finite.
void advance_counts(const StepFinish& finish);

}  // namespace eg
