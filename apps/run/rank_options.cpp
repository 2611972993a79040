// apps/run/rank_options.cpp - see rank_options.h.
#include "apps/run/rank_options.h"

#include <CLI/CLI.hpp>
#include <set>

#include "apps/options.h"

namespace eg {

void add_rank_options(CLI::App& sub, RankOptions& o, bool works_together) {
  constexpr const char* group = "Ranks (started by mpirun, srun or torchrun)";
  sub.add_option(
         "--rendezvous", o.rendezvous,
         "Where ranks meet: tcp://HOST:PORT (rank 0 listens there) or file:///SHARED/FOLDER (with a new "
         "EVERGRAD_NONCE for every start). Default: EVERGRAD_RENDEZVOUS, else MASTER_ADDR and MASTER_PORT, else "
         "what the starter says")
      ->group(group);
  sub.add_option("--rank-deadline", o.rank_deadline, "Seconds until ranks that have not come are named and all give up")
      ->capture_default_str()
      ->check(number_in(0.001, 1e6))
      ->group(group);
  if (!works_together) return;
  sub.add_option(
         "--step-deadline", o.step_deadline,
         "Seconds that ranks wait for each other within a step before the one at fault is named and all end with "
         "code 75 (0: the larger of 60 and 20 medians of a step's time)")
      ->capture_default_str()
      ->check(number_in(0.0, 1e6))
      ->group(group);
}

std::string shared_flags(const CLI::App& sub) {
  // --config and --recipe have already become flags; the others say how a rank works, not what all of them do.
  static const std::set<std::string> own{"config",     "recipe",        "device",        "threads",           "workers",
                                         "rendezvous", "rank-deadline", "step-deadline", "checkpoint-seconds"};
  std::string text;
  for (const CLI::Option* option : sub.get_options()) {
    const std::string name = option->get_single_name();
    if (option->count() == 0 || own.contains(name)) continue;
    text += name + " =";
    for (const std::string& value : option->results()) text += " " + value;
    text += '\n';
  }
  return text;
}

SessionOptions session_options(const RankOptions& o, Device device, const std::string& config) {
  SessionOptions s;
  s.device = device, s.config = config, s.rendezvous = o.rendezvous;
  s.rank_deadline = o.rank_deadline, s.step_deadline = o.step_deadline;
  return s;
}

}  // namespace eg
