// optim/arrow_targets.h - which parameters ARROW updates, and which of them share a window (methods.md A.3.4).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "optim/arrow_options.h"

namespace eg {

/// A run of parameters that ARROW updates: a whole tensor, or the q, k or v third of a fused one.
struct ArrowRun {
  std::string name;
  std::int64_t begin = 0, size = 0;  // in the arena
  int block = 0, module = 0;         // module: q 0, k 1, v 2, output 3, fc1 4, fc2 5
  bool decays = false;
};

/// What the settings choose of the model, in the model's order. Throws Error{usage} when that is nothing.
std::vector<ArrowRun> arrow_runs(const ArrowSettings& settings, const Parameters& parameters);
/// The name of the group that a run belongs to.
std::string arrow_group(const ArrowSettings& settings, const ArrowRun& run);
/// What remains of the segments without the given runs.
std::vector<Segment> without(const std::vector<Segment>& segments, std::vector<ArrowRun> runs);

}  // namespace eg
