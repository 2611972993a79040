// engine/collectives/session.h - what a run on several ranks holds besides its communicator, in the order in which it comes about:
// a place, a store, the cards of all, and from then on a watchdog.
//
//   RankSession session(detect_launch(), {.device = device, .config = config.toml()});
//   const auto ranks = session.watch(make_backend(session.store()), run_folder);
//   ... ranks->all_reduce(...); session.watchdog()->step();
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/collectives/handshake.h"
#include "engine/collectives/watchdog.h"

namespace eg {

struct SessionOptions {
  Device device = kCpu;
  std::string config;           // the text that all ranks must share
  std::string rendezvous;       // as open_store takes it; empty: EVERGRAD_RENDEZVOUS, else what the launch says
  double rank_deadline = 60.0;  // seconds until all have come
  double step_deadline = 0.0;   // seconds; 0: WatchOptions' default
  bool share_gpu = false;       // two ranks may be on one GPU (tests)
};

class RankSession {
 public:
  /// Meets the others and compares cards. Throws Error{usage|io} as open_store, exchange_cards and check_cards do.
  RankSession(const Launch& launch, const SessionOptions& options);
  const Launch& launch() const { return launch_; }
  Store& store() { return *store_; }
  const std::vector<RankCard>& cards() const { return cards_; }

  /// `inner` under a watchdog that writes into `run_folder` (empty: standard error only). `device_progress` as in
  /// WatchOptions. Call it once; what it returns must die before the session.
  std::unique_ptr<Collectives> watch(std::unique_ptr<Collectives> inner, const std::filesystem::path& run_folder,
                                     std::function<std::uint64_t()> device_progress = {});
  /// Null before watch().
  Watchdog* watchdog() { return watchdog_.get(); }

 private:
  const Launch launch_;
  const SessionOptions options_;
  std::unique_ptr<Store> store_;
  std::vector<RankCard> cards_;
  std::unique_ptr<Watchdog> watchdog_;  // leaves before the store closes
};

}  // namespace eg
