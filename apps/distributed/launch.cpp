// apps/distributed/launch.cpp - see launch.h.
#include "apps/distributed/launch.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <iostream>
#include <string>
#include <thread>

#include "apps/run/signals.h"
#include "engine/collectives/mpi.h"
#include "engine/error.h"

namespace eg {
namespace {

/// The first of these variables that holds a whole number, or 0.
int number_in_environment(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* const text = std::getenv(name);
    if (!text || !*text) continue;
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*end == '\0' && value >= 1 && value < (1 << 20)) return int(value);
  }
  return 0;
}

/// Open MPI, and the launchers that speak PMI (MPICH, Slurm).
int ranks_of_mpi() { return number_in_environment({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}); }

}  // namespace

std::shared_ptr<Collectives> connect_ranks(Device device) {
  const int asked = ranks_of_mpi();
  if (asked <= 1) return single_rank(device);
  check(have_mpi(), Kind::usage, [&] {
    return cat("MPI started ", asked,
               " processes, but this evergrad was built without MPI and each would train alone; ",
               "install it (Debian: libopenmpi-dev, openmpi-bin) and build again, or start one process");
  });
  return mpi_ranks(device);
}

int ranks_on_this_host() {
  return std::max(1, number_in_environment({"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}));
}

int run_as_rank(Collectives& ranks, const std::function<int()>& body) {
  if (ranks.size() == 1) return body();
  if (ranks.rank() != 0) std::cout.rdbuf(nullptr);
  std::string why;
  try {
    const int code = body();
    ranks.barrier();  // launchers end everybody when one process leaves with a code that is not 0
    return code;
  } catch (const std::exception& e) { why = e.what(); }
  // What a person must change is usually the same on all ranks; the first one says it, and ends the others meanwhile.
  if (ranks.rank() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  std::cerr << cat("evergrad: rank ", ranks.rank(), " of ", ranks.size(), ": ", why, '\n') << std::flush;
  ranks.abort(why);
  return 1;
}

void share_batches(LoaderConfig& config, const Collectives& ranks) {
  config.rank = ranks.rank(), config.ranks = ranks.size();
}

Pause agree_on_pause(Collectives& ranks, bool due) {
  const int own = stop_exit_code();
  double votes[] = {own != 0 ? 1.0 : 0.0, due ? 1.0 : 0.0};
  ranks.sum_on_host(votes);
  const bool stop = votes[0] > 0.0;
  return {stop || votes[1] > 0.0, !stop ? 0 : own != 0 ? own : 143};
}

}  // namespace eg
