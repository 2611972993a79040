// apps/distributed/rank_files.cpp - see rank_files.h.
#include "apps/distributed/rank_files.h"

#include <algorithm>
#include <iostream>

#include "engine/collectives/agree.h"
#include "engine/error.h"

namespace eg {

void check_same_config_on_ranks(const Config& mine, Collectives& ranks) {
  if (ranks.size() == 1) return;
  const std::vector<std::string> all = ranks.all_gather_bytes(mine.toml());
  const Config first = Config::from_toml(all[0], "the configuration of rank 0");
  for (std::size_t r = 1; r < all.size(); ++r) {
    const std::string name = cat("the configuration of rank ", r);
    const auto d = first_difference(first, Config::from_toml(all[r], name), {"threads", "device"});
    check(!d, Kind::usage, [&] {
      return cat("the ranks make different things of the same command: ", d->key, " is ",
                 d->before.value_or("not there"), " on rank 0 and ", d->now.value_or("not there"), " on rank ", r,
                 "; their processors or their data differ: set --", d->key, ", or give all of them the same data");
    });
  }
}

RunFolder open_run_folder(const std::filesystem::path& path, bool resume, Collectives& ranks) {
  if (ranks.rank() != 0) return RunFolder::join(path, ranks.all_gather_bytes("")[0] == "continues");
  RunFolder folder = RunFolder::open(path, resume);
  ranks.all_gather_bytes(folder.continues() ? "continues" : "begins");
  return folder;
}

Checkpoints open_checkpoints(const RunFolder& folder, Collectives& ranks) {
  if (ranks.rank() != 0) {
    ranks.barrier();
    return Checkpoints::of_another_rank(folder.checkpoints());
  }
  Checkpoints checkpoints(folder.checkpoints());
  ranks.barrier();
  return checkpoints;
}

void save_checkpoint(Checkpoints& checkpoints, Collectives& ranks, std::int64_t step,
                     std::span<const StateTensor> tensors, const std::function<nlohmann::json()>& state) {
  const bool first = ranks.rank() == 0;
  if (std::none_of(tensors.begin(), tensors.end(), [](const StateTensor& t) { return t.part.has_value(); })) {
    if (first) checkpoints.save(step, tensors, state());
    return;
  }
  const std::string name = ranks.all_gather_bytes(first ? checkpoints.new_name(step) : "")[0];
  const nlohmann::json own = checkpoints.write_file_of_rank(name, ranks.rank(), step, tensors);
  std::vector<nlohmann::json> files;
  for (const std::string& text : ranks.all_gather_bytes(own.dump())) files.push_back(nlohmann::json::parse(text));
  if (first) checkpoints.publish(step, files, state());
}

std::optional<Checkpoint> load_latest(const Checkpoints& checkpoints, Collectives& ranks) {
  const char* const remedy = "give --out a folder that all of them see";
  check_same_on_ranks(ranks, "the checkpoints that they find in the run folder", checkpoints.listing(), remedy);
  std::vector<std::string> notes;
  std::optional<Checkpoint> c = checkpoints.load_latest(
      &notes, {ranks.rank(), ranks.size(), [&](const std::string& mine) { return first_text(ranks, mine); }});
  if (ranks.rank() == 0)
    for (const std::string& note : notes) std::cerr << "evergrad: " << note << '\n';
  check_same_on_ranks(ranks, "the checkpoint that they find in the run folder",
                      c ? cat("step ", c->step) : std::string("none"), remedy);
  return c;
}

JsonLog open_log(const RunFolder& folder, std::uint64_t keep_bytes, const Collectives& ranks) {
  return ranks.rank() == 0 ? JsonLog(folder.metrics(), keep_bytes) : JsonLog();
}

Progress rank_progress(const Collectives& ranks) {
  return ranks.rank() == 0 ? Progress::standard() : Progress::silent();
}

}  // namespace eg
