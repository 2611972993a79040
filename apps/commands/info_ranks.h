// apps/commands/info_ranks.h - `evergrad info --ranks`: who would run together, tried out up to the communicator.
#pragma once
#include <string>

#include "apps/run/rank_options.h"

namespace eg {

struct RanksOptions {
  bool show = false;
  std::string device = "cpu", config;
  RankOptions ranks;
};
void add_ranks_options(CLI::App& sub, RanksOptions& o);

/// Every rank of a start calls it: they meet, exchange cards and refuse or agree as a training would. Rank 0 prints the table.
/// Throws Error{usage|io}.
int info_ranks(const RanksOptions& o);

}  // namespace eg
