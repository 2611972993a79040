// engine/collectives/session.cpp - see session.h.
#include "engine/collectives/session.h"

namespace eg {

RankSession::RankSession(const Launch& launch, const SessionOptions& options) : launch_(launch), options_(options) {
  const Deadline deadline = within(options.rank_deadline);
  store_ = open_store(launch, deadline, options.rendezvous.empty() ? rendezvous_of_environment() : options.rendezvous);
  cards_ = exchange_cards(*store_, card_of(launch, options.device, options.config), deadline);
  check_cards(cards_, launch.rank, options.share_gpu);
}

std::unique_ptr<Collectives> RankSession::watch(std::unique_ptr<Collectives> inner,
                                                const std::filesystem::path& run_folder,
                                                std::function<std::uint64_t()> device_progress) {
  watchdog_ = std::make_unique<Watchdog>(store_->second(), WatchOptions{.step_deadline = options_.step_deadline,
                                                                        .run_folder = run_folder,
                                                                        .device_progress = std::move(device_progress)});
  return watched(std::move(inner), *watchdog_);
}

}  // namespace eg
