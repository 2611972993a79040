// apps/commands/info_ranks.cpp - see info_ranks.h.
#include "apps/commands/info_ranks.h"

#include <iostream>

#include "apps/command.h"
#include "apps/options.h"
#include "engine/collectives/session.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {

void add_ranks_options(CLI::App& sub, RanksOptions& o) {
  constexpr const char* group = "Ranks (mpirun -n 4 evergrad info --ranks, srun, torchrun's variables)";
  sub.add_flag("--ranks", o.show,
               "Meet the other ranks of this start, compare versions, builds and devices, print the table")
      ->group(group);
  sub.add_option("--device", o.device, "Device of each rank; cuda is the GPU of its local rank")
      ->capture_default_str()
      ->group(group);
  sub.add_option("--config", o.config, "A file that must be equal on all ranks")->group(group);
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
}

int info_ranks(const RanksOptions& o) {
  const Launch launch = detect_launch();
  SessionOptions options;
  options.device = device_of_rank(launch, o.device);
  runtime(options.device);  // throws with the list of devices that exist here
  options.config = o.config.empty() ? "" : read_file(o.config, std::uint64_t(1) << 24);
  options.rendezvous = o.rendezvous, options.rank_deadline = o.rank_deadline;
  RankSession session(launch, options);
  if (launch.rank == 0)
    std::cout << describe(launch) << "\nstore " << session.store().where() << "\n\n"
              << card_table(session.cards()) << std::flush;
  session.store().barrier("shown", within(o.rank_deadline));
  return 0;
}

}  // namespace eg
