// apps/distributed/launch.cpp - see launch.h.
#include "apps/distributed/launch.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>

#include "apps/run/signals.h"
#include "engine/collectives/mpi.h"
#include "engine/collectives/nccl.h"
#include "engine/collectives/own_address.h"
#include "engine/error.h"

namespace eg {
namespace {

int met_on_this_host = 1;

/// What must live as long as the collectives: they die first.
struct Connected {
  RankSession session;
  std::unique_ptr<Collectives> ranks;
};

/// True where a launcher has prepared what MPI_Init looks for; without, every process would initialise an MPI of its own.
bool started_for_mpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"})
    if (std::getenv(name)) return true;
  return false;
}

std::unique_ptr<Collectives> begun_mpi(const Launch& launch, Device device) {
  auto ranks = mpi_ranks(device);
  check(ranks->size() == launch.size && ranks->rank() == launch.rank, Kind::usage, [&] {
    return cat(launch.how, " says rank ", launch.rank, " of ", launch.size, ", MPI says rank ", ranks->rank(), " of ",
               ranks->size(), "; start evergrad with the mpirun of the MPI that it was built with");
  });
  return ranks;
}

/// mpi: where ranks have met over it already.
std::unique_ptr<Collectives> over_mpi(const Launch& launch, Device device, std::unique_ptr<Collectives> mpi) {
  check(have_mpi(), Kind::usage, [&] {
    return cat(launch.how, " started ", launch.size,
               " processes, but this evergrad was built without MPI and each would train alone; ",
               "install it (Debian: libopenmpi-dev, openmpi-bin) and build again, or start one process");
  });
  check(started_for_mpi(), Kind::usage, [&] {
    return cat("all ", launch.size, " ranks have met, but ranks on ", device, " add up over MPI, and ", launch.how,
               " has not started it; start them by mpirun -n ", launch.size,
               " evergrad ... or srun --mpi=pmix (on GPUs, with --device cuda, ", launch.how, " is enough)");
  });
  return mpi ? std::move(mpi) : begun_mpi(launch, device);
}

std::unique_ptr<Collectives> over_nccl(RankSession& session, Device device, const RankOptions& options,
                                       bool deterministic) {
  NcclOptions nccl;
  nccl.device = device, nccl.deterministic = deterministic, nccl.local_size = met_on_this_host;
  nccl.init_seconds = std::max(nccl.init_seconds, options.rank_deadline);
  return nccl_collectives(session.store(), nccl);
}

std::function<std::uint64_t()> progress_of(const Collectives& ranks, Device device) {
  if (ranks.name() == "nccl") return nccl_progress(ranks);
  return device.is_host() ? std::function<std::uint64_t()>{} : mpi_progress(ranks);
}

}  // namespace

Launch tell_address(Launch launch, const RankOptions& options, Device device, std::unique_ptr<Collectives>* mpi) {
  const bool said = !launch.master_addr.empty() || !options.rendezvous.empty() || !rendezvous_of_environment().empty();
  if (launch.size == 1 || said || !have_mpi() || !started_for_mpi()) return launch;
  const bool gpu = device.type == DeviceType::cuda;
  *mpi = begun_mpi(launch, gpu ? kCpu : device);
  // What rank 0 cannot do all must hear: they wait for its words.
  std::string mine;
  if (launch.rank == 0) try {
      mine = cat(own_address(), ' ', free_port());
    } catch (const Error& e) { mine = e.what(); }
  const std::string said_by_first = (*mpi)->all_gather_bytes(mine)[0];
  // GPUs do without MPI from here on, and its end, which waits for all ranks, must not wait for one that fails.
  if (gpu) mpi->reset();
  std::istringstream(said_by_first) >> launch.master_addr >> launch.master_port;
  check(launch.master_port > 0, Kind::io, [&] { return cat("rank 0 cannot say where ranks meet: ", said_by_first); });
  return launch;
}

std::shared_ptr<Collectives> connect_ranks(const RankOptions& options, std::string* device, bool deterministic) {
  const Launch started = detect_launch();
  if (started.size == 1) return single_rank();
  const Device own = device_of_rank(started, *device);
  runtime(own);  // throws with the list of devices that exist here
  *device = to_string(own);
  std::unique_ptr<Collectives> mpi;
  const Launch launch = tell_address(started, options, own, &mpi);
  const auto connected = std::make_shared<Connected>(
      Connected{RankSession(launch, session_options(options, own, options.config)), nullptr});
  RankSession& session = connected->session;
  const std::string& host = session.cards()[std::size_t(launch.rank)].host;
  met_on_this_host =
      int(std::ranges::count_if(session.cards(), [&](const RankCard& card) { return card.host == host; }));
  auto ranks = own.type == DeviceType::cuda ? over_nccl(session, own, options, deterministic)
                                            : over_mpi(launch, own, std::move(mpi));
  const auto progress = progress_of(*ranks, own);
  connected->ranks = session.watch(std::move(ranks), {}, progress);
  say_busy(*connected->ranks, "starting");
  return {connected, connected->ranks.get()};
}

int ranks_on_this_host() { return met_on_this_host; }

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
  if (Watchdog* const dog = watchdog_of(ranks)) dog->failed(why);
  ranks.abort(why);
  return 1;
}

void say_step(Collectives& ranks) {
  if (Watchdog* const dog = watchdog_of(ranks)) dog->step();
}

void say_busy(Collectives& ranks, const std::string& what) {
  if (Watchdog* const dog = watchdog_of(ranks)) dog->busy(what);
}

void keep_records(Collectives& ranks, const std::filesystem::path& run_folder) {
  if (Watchdog* const dog = watchdog_of(ranks)) dog->write_into(run_folder);
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
