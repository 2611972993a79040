// optim/schedule.h - the learning rate over the updates of one task, as a factor of the base rate.
#pragma once
#include <cstdint>
#include <string_view>

namespace eg {

/// The shape of the learning rate after warm-up.
enum class Schedule : std::uint8_t { constant, linear, cosine };

/// "constant", "linear" (to zero) or "cosine" (to zero; Loshchilov & Hutter 2017, arXiv:1608.03983). Throws
/// Error{usage}.
Schedule parse_schedule(std::string_view text);

/// The factor of update `step` (from 0) out of `steps`. The first warmup_steps updates rise linearly, (step + 1) /
/// warmup_steps; the rest follows the schedule over what remains, and stays at its end value past `steps`.
double schedule_factor(Schedule schedule, std::int64_t step, std::int64_t steps, std::int64_t warmup_steps = 0);

}  // namespace eg
