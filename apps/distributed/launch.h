// apps/distributed/launch.h - how the processes of one run find each other, and how they end together.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "apps/run/rank_options.h"
#include "data/loader.h"
#include "engine/collectives/collectives.h"
#include "engine/collectives/launch.h"

namespace eg {

/// The ranks that a launcher started this process among (engine/collectives/launch.h), met and compared (handshake.h) and from now
/// on watched (watchdog.h); or one alone, with none of that. device: what --device says, and then this rank's own ("cuda" becomes
/// the GPU of its place on the host). Ranks on cpu and emulated sum over MPI, on GPUs over NCCL.
/// Throws Error{usage|io|device}: the ranks do not come, or differ; or build, launcher and device do not go together.
/// deterministic: also over NCCL in ascending order of ranks, as everywhere else.
std::shared_ptr<Collectives> connect_ranks(const RankOptions& options, std::string* device, bool deterministic);

/// Where nobody said at which address ranks meet, and MPI has started them: rank 0 chooses one of its host's and a free port, and
/// tells the others over MPI. Returns the launch with it; mpi: then MPI itself, which ranks on host devices go on with (null for
/// GPUs, which do not). Anything else: the launch as it is. Throws Error{usage}: MPI and the launcher count ranks differently.
Launch tell_address(Launch launch, const RankOptions& options, Device device, std::unique_ptr<Collectives>* mpi);

/// Ranks of the present run that share this machine's cores: those that connect_ranks met here; 1 before.
int ranks_on_this_host();

/// Runs `body` and returns its exit code. With several ranks, all but the first are mute on standard output, and an
/// exception on one of them is printed there, with its rank, and ends all. With one, it is thrown on.
int run_as_rank(Collectives& ranks, const std::function<int()>& body);

/// What the watchdog of several ranks is told; nothing happens where one is alone.
void say_step(Collectives& ranks);                           // a training step has ended
void say_busy(Collectives& ranks, const std::string& what);  // until the next step: others wait longer for this rank
/// The run folder is open: flight records go there.
void keep_records(Collectives& ranks, const std::filesystem::path& run_folder);

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
