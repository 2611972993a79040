// apps/bench/rank_bench.h - `evergrad bench` over ranks: a timeline of steps, weak scaling, and the scaling model.
#pragma once
#include <string>

#include "apps/bench/step_rig.h"

namespace eg {

/// --trace FILE: some training steps of one or more ranks as Chrome trace JSON, and a table of where the time went.
int bench_trace(BenchOptions o);
/// --weak-scaling: one rank alone, all at once without a word between them, and all together, in turns.
int bench_weak_scaling(BenchOptions o);
/// --scaling: what the model predicts for more ranks, with its assumptions.
int bench_scaling(const BenchOptions& o);

}  // namespace eg
