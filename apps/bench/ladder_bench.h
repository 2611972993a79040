// apps/bench/ladder_bench.h - `evergrad bench --ladder`: the rungs of one teaching ladder (engine/ladder.h).
#pragma once
#include <string>

#include "apps/bench/ceilings.h"
#include "apps/bench/kernel_bench.h"

namespace eg {

/// Throws Error{usage} where the device has no ladders, or this one does not take the shape.
void check_ladder(Device device, const std::string& name, const BenchShape& shape);

/// Checks every rung on a small piece against the double-precision reference, times it at the full shape where times
/// mean something, and returns a table with an explanation. `name`: matmul, attention or layer_norm. Throws what
/// check_ladder throws, and Error{internal} when a rung is wrong.
std::string bench_ladder(Device device, const std::string& name, const BenchShape& shape, const Ceilings& ceilings,
                         double seconds);

}  // namespace eg
