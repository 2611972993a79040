// apps/commands/info_ranks.cpp - see info_ranks.h.
#include "apps/commands/info_ranks.h"

#include <iostream>

#include "apps/command.h"
#include "apps/distributed/launch.h"
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
  add_rank_options(sub, o.ranks, false);
}

int info_ranks(const RanksOptions& o) {
  Launch launch = detect_launch();
  const Device device = device_of_rank(launch, o.device);
  runtime(device);  // throws with the list of devices that exist here
  const std::string config = o.config.empty() ? "" : read_file(o.config, std::uint64_t(1) << 24);
  std::unique_ptr<Collectives> mpi;
  launch = tell_address(std::move(launch), o.ranks, device, &mpi);
  RankSession session(launch, session_options(o.ranks, device, config));
  if (launch.rank == 0)
    std::cout << describe(launch) << "\nstore " << session.store().where() << "\n\n"
              << card_table(session.cards()) << std::flush;
  session.store().barrier("shown", within(o.ranks.rank_deadline));
  return 0;
}

}  // namespace eg
