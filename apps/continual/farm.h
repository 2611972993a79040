// apps/continual/farm.h - many runs at a time: every (method, seed) pair is a process with a folder of its own, and a
// sweep is a set of such runs before the ones that count.
#pragma once
#include "apps/continual/continual.h"

namespace eg {

/// What run_continual does for --jobs above 1 and for --sweep. The runs lie in OUT/runs/, those of a sweep in
/// OUT/sweep/; OUT/metrics.jsonl and summary.json hold all of the former together, OUT/sweep.json what was tried and
/// chosen. Resumable: what is finished is not run again. Exit code and errors as run_continual.
int run_farm(const ContinualOptions& options);

}  // namespace eg
