// apps/distributed/rank_files.h - who writes what: the first rank owns the run folder, the others read it. The folder has to
// be one that all ranks see.
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/run/checkpoint.h"
#include "apps/run/config.h"
#include "apps/run/progress.h"
#include "apps/run/run_folder.h"
#include "engine/collectives/collectives.h"
#include "engine/log.h"

namespace eg {

/// Throws Error{usage} on all ranks, naming flag, ranks and values, when they have made different things of the same command: other
/// processors, or other data. Threads and the number of a device may differ.
void check_same_config_on_ranks(const Config& mine, Collectives& ranks);
/// RunFolder::open on the first rank, whose failure ends the others; join on these.
RunFolder open_run_folder(const std::filesystem::path& folder, bool resume, Collectives& ranks);
/// Can save on the first rank, and read, and write a part of what the first saves, on all. Returns when the folder is there.
Checkpoints open_checkpoints(const RunFolder& folder, Collectives& ranks);
/// Called by all ranks. The first writes everything but what ranks divide among them; of that all write their parts at once. `state` is
/// asked on the first rank when all files are written; then the checkpoint exists. Throws as Checkpoints::save, on the rank whose
/// part could not be written.
void save_checkpoint(Checkpoints& checkpoints, Collectives& ranks, std::int64_t step,
                     std::span<const StateTensor> tensors, const std::function<nlohmann::json()>& state);
/// The newest good checkpoint, the same one on all ranks, which read its files through among them; what was found damaged goes to
/// standard error. Throws Error{usage}
/// on all of them when they do not see the same: the folder is not shared.
std::optional<Checkpoint> load_latest(const Checkpoints& checkpoints, Collectives& ranks);
/// The log, cut to `keep_bytes`, on the first rank; one that keeps nothing on the others.
JsonLog open_log(const RunFolder& folder, std::uint64_t keep_bytes, const Collectives& ranks);
/// Visible on the first rank.
Progress rank_progress(const Collectives& ranks);

}  // namespace eg
