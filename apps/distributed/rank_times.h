// apps/distributed/rank_times.h - where the time of each rank goes, so that a slow one gets a name.
#pragma once
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/collectives/collectives.h"
#include "engine/log.h"

namespace eg {

/// Seconds of one rank over the same steps: everything, what its loader let it wait, what other ranks did.
struct RankTime {
  double all = 0.0, data = 0.0, others = 0.0;
  double own() const { return all - others; }
};

/// "rank 2 of 4 holds the others up: ..." when one rank's own time (its loader included) is a fifth above the median of all and
/// half a second at least. Empty otherwise.
std::string straggler(const std::vector<RankTime>& times);

/// Measures stretches of a run that all ranks go through together. Nothing happens where one is alone.
class RankTimes {
 public:
  /// The first rank writes RUN/ranks.jsonl, and goes on where an earlier start ended.
  RankTimes(std::shared_ptr<Collectives> ranks, const std::filesystem::path& run_folder);
  /// data_seconds: what the loader has let this rank wait so far.
  void begin(double data_seconds);
  /// A host operation on all ranks: one line, `line` with compute_s, data_s, wait_s and sent_bytes of each rank. Waiting is the
  /// time inside collectives; what a device waits for while the host does not is not seen. Returns straggler()'s words.
  std::string end(double data_seconds, LogLine line);

 private:
  const std::shared_ptr<Collectives> ranks_;
  JsonLog log_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double data_ = 0.0, others_ = 0.0;
  std::int64_t sent_ = 0;  // Collectives::bytes_sent at the beginning
};

}  // namespace eg
