// apps/run/rank_options.h - the flags of commands that run on several ranks.
#pragma once
#include <string>

#include "engine/collectives/session.h"

namespace CLI {
class App;
}

namespace eg {

struct RankOptions {
  std::string rendezvous;
  double rank_deadline = 60.0, step_deadline = 0.0;  // seconds; 0: the default of WatchOptions
  std::string config;                                // the text that all ranks must share
};
/// --rendezvous, --rank-deadline, and where ranks then work together --step-deadline.
void add_rank_options(CLI::App& sub, RankOptions& o, bool works_together);

/// What a command was told, one flag and value a line, without flags that may differ between ranks.
std::string shared_flags(const CLI::App& sub);

/// As the session takes them. `config` is the text that all ranks must share.
SessionOptions session_options(const RankOptions& o, Device device, const std::string& config);

}  // namespace eg
