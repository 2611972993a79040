// apps/distributed/launch.h - how the processes of one run find each other, and how they end together.
#pragma once
#include <functional>
#include <memory>

#include "data/loader.h"
#include "engine/collectives/collectives.h"

namespace eg {

/// The ranks that a launcher started this process among, or one alone. device: where gradients will lie. Throws Error: the
/// build or the device cannot do what the launcher asks for.
std::shared_ptr<Collectives> connect_ranks(Device device);

/// Ranks of the present run that share this machine's cores, as the launcher's environment says; 1 without one.
int ranks_on_this_host();

/// Runs `body` and returns its exit code. With several ranks, all but the first are mute on standard output, and an
/// exception on one of them is printed there, with its rank, and ends all. With one, it is thrown on.
int run_as_rank(Collectives& ranks, const std::function<int()>& body);

/// Every rank gets its part of each batch.
void share_batches(LoaderConfig& config, const Collectives& ranks);

/// What all ranks do at a point where a run may pause.
struct Pause {
  bool save = false;  // write a checkpoint
  int exit_code = 0;  // not 0: then leave with it, because one of them got a signal (run/signals.h)
};
/// due: this rank thinks that it is time for a checkpoint; one of them is enough, and so is a signal. A host operation: all
/// ranks ask at the same points.
Pause agree_on_pause(Collectives& ranks, bool due);

}  // namespace eg
