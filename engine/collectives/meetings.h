// engine/collectives/meetings.h - what all ranks tell each other over a store, as often as they like.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/collectives/store.h"

namespace eg {

/// Store::gather leaves its entries behind, which a training of a million steps would fill any store with. Meetings take turns on
/// two places: a rank overwrites what it said two meetings ago, when everybody has come to the one after and so has read it.
class Meetings {
 public:
  /// `name`: equal on all ranks, and nobody else's. The store must outlive this.
  Meetings(Store& store, std::string name) : store_(store), name_(std::move(name)) {}
  /// What every rank says at this meeting, in order of ranks. All ranks hold the same meetings in the same order. Throws
  /// Error{io}: the deadline passes (names the ranks that are missing), a rank has failed, or the store has gone.
  std::vector<std::string> gather(const std::string& mine, const Deadline& deadline);

 private:
  Store& store_;
  const std::string name_;
  std::uint64_t held_ = 0;
};

}  // namespace eg
