// apps/continual/probe.h - the diagnosis after each task: what the blocks look like from inside (methods.md D).
#pragma once
#include <vector>

#include "apps/continual/plan.h"
#include "engine/log.h"

namespace eg {

struct BlockProbe {
  double effective_rank = 0.0;  // of the block's output tokens, uncentred (Roy & Vetterli 2007)
  double active_units = 0.0;    // share of hidden entries with |gelu'(z)| > 0.01: gradient can pass (fau_grad, D.2)
  double weight_norm = 0.0;     // of all the block's parameters
  double gradient_norm = 0.0;   // of the last update's gradient
};

/// Runs the loader's images forward (no gradient, no augmentation) and measures every block. Changes nothing.
std::vector<BlockProbe> probe_blocks(Trainer& trainer, Loader& images);

/// The same on the first --probe-images test images of a task, as lists (one number per block) of a log line.
void add_probe(LogLine& line, const Plan& plan, const Pair& pair, Trainer& trainer, const Task& task);

}  // namespace eg
