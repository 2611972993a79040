// apps/run/signals.h - SIGINT, SIGTERM and SIGUSR1 as a flag that loops poll between steps.
#pragma once

namespace eg {

/// The first SIGINT, SIGTERM or SIGUSR1 (by which Slurm announces the end of a job: sbatch --signal=USR1@120) sets the flag, so
/// that the loop can checkpoint; a second SIGINT ends the process at once.
void catch_stop_signals();
/// The signal that asked to stop, or 0.
int stop_signal();
/// 130 after SIGINT, 143 after SIGTERM, 138 after SIGUSR1, 0 without a signal: what main returns.
int stop_exit_code();
/// Forgets a signal (tests).
void clear_stop_signal();

}  // namespace eg
