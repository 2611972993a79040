// engine/collectives/launch.cpp - see launch.h.
#include "engine/collectives/launch.h"

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "engine/error.h"

extern char** environ;

namespace eg {
namespace {

/// The words in which a starter says rank and size, and perhaps the place on this host.
struct Words {
  const char *how, *rank, *size, *local_rank, *local_size;
};
constexpr Words kTorchrun{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Words kOpenMpi{"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                         "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Words kPmi{"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};
constexpr int kMostRanks = 1 << 20;

std::optional<int> number(const GetEnv& get, const char* name, int low, int high) {
  const auto text = get(name);
  if (!text) return std::nullopt;
  int value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  check(error == std::errc{} && end == text->data() + text->size() && value >= low && value <= high, Kind::usage, [&] {
    return cat("the environment variable ", name, " is '", *text, "', but must be a whole number from ", low, " to ",
               high, "; unset it, or let the starter (mpirun, srun, torchrun) set it");
  });
  return value;
}

std::optional<Launch> read(const GetEnv& get, const Words& w) {
  const auto rank = number(get, w.rank, 0, kMostRanks), size = number(get, w.size, 1, kMostRanks);
  if (!rank && !size) return std::nullopt;
  check(rank && size, Kind::usage, [&] {
    return cat("the environment variable ", rank ? w.rank : w.size, " is set and ", rank ? w.size : w.rank,
               " is not; set both (rank and number of ranks), or neither to run alone");
  });
  Launch l;
  l.rank = *rank, l.size = *size, l.how = w.how;
  check(l.rank < l.size, Kind::usage, [&] {
    return cat(w.rank, " is ", l.rank, " and ", w.size, " is ", l.size, "; ranks count from 0 to ", w.size, " - 1");
  });
  const auto local_rank = number(get, w.local_rank, 0, kMostRanks),
             local_size = number(get, w.local_size, 1, kMostRanks);
  l.local_size = local_size.value_or(l.size == 1 ? 1 : 0);
  l.local_rank = local_rank.value_or(0);
  check(local_rank || l.size == 1, Kind::usage, [&] {
    return cat(w.rank, " and ", w.size, " are set, but ", w.local_rank,
               " is not; it says which device of its host a rank takes: set it, from 0 on every host");
  });
  const int most = l.local_size > 0 ? l.local_size : l.size;
  check(l.local_rank < most && l.local_size <= l.size, Kind::usage, [&] {
    return cat(w.local_rank, " is ", l.local_rank, ", ", w.local_size, " is ",
               local_size ? std::to_string(l.local_size) : "not set", " and ", w.size, " is ", l.size,
               ", which cannot be; local ranks count from 0 on every host");
  });
  return l;
}

std::optional<Launch> read_slurm(const GetEnv& get) {
  // A batch script sees the allocation's SLURM_NTASKS, but is one process: only srun starts steps.
  if (!get("SLURM_PROCID") || (!get("SLURM_STEP_ID") && !get("SLURM_STEPID"))) return std::nullopt;
  const bool step = get("SLURM_STEP_NUM_TASKS").has_value();
  return read(
      get, {"srun", "SLURM_PROCID", step ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS", "SLURM_LOCALID", "EVERGRAD_NONE"});
}

/// A port that all ranks of a start agree on without talking: below Linux's ephemeral ports (32768 on), above what services use.
int port_of(const std::string& text) {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a, which needs to spread, not to protect
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return 15000 + int((h ^ (h >> 32)) % 15000);
}

std::string nonce_of(const GetEnv& get, const std::string& how) {
  const auto value = [&](const char* name) { return get(name).value_or(""); };
  if (const auto given = get("EVERGRAD_NONCE")) return *given;
  if (how == "torchrun") {
    const std::string id = value("TORCHELASTIC_RUN_ID");
    return id.empty() || id == "none" ? "" : id + "." + value("TORCHELASTIC_RESTART_COUNT");
  }
  if (how == "srun") return cat(value("SLURM_JOB_ID"), ".", get("SLURM_STEP_ID").value_or(value("SLURM_STEPID")));
  if (how == "mpirun") return get("PMIX_NAMESPACE").value_or(value("OMPI_MCA_ess_base_jobid"));
  return "";
}

void find_master(const GetEnv& get, Launch* l) {
  const auto address = get("MASTER_ADDR");
  const auto port = number(get, "MASTER_PORT", 1, 65535);
  check(bool(address) == bool(port), Kind::usage, [&] {
    return cat(address ? "MASTER_ADDR" : "MASTER_PORT", " is set and ", address ? "MASTER_PORT" : "MASTER_ADDR",
               " is not; set both (where rank 0 listens), or neither");
  });
  check(!address || !address->empty(), Kind::usage,
        [] { return std::string("MASTER_ADDR is empty; it names the host of rank 0"); });
  if (address) {
    l->master_addr = *address, l->master_port = *port;
    // torchrun's own agent may listen there already.
    if (get("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True") l->master_port += l->master_port < 65535 ? 1 : -1;
  } else if (l->how == "srun") {
    l->master_addr = first_host(get("SLURM_STEP_NODELIST").value_or(get("SLURM_JOB_NODELIST").value_or("")));
    if (!l->master_addr.empty()) l->master_port = port_of(l->nonce);
  } else if (l->size > 1 && l->local_size == l->size && !l->nonce.empty()) {
    l->master_addr = "127.0.0.1", l->master_port = port_of(l->nonce);
  }
  check(l->how != "torchrun" || l->size == 1 || address, Kind::usage, [&] {
    return cat("RANK and WORLD_SIZE are set (rank ", l->rank, " of ", l->size,
               "), but MASTER_ADDR and MASTER_PORT are not; set them to a host and a free port where rank 0 listens");
  });
}

}  // namespace

std::string first_host(const std::string& list) {
  const std::size_t open = list.find_first_of("[,");
  if (open == std::string::npos || list[open] == ',') return list.substr(0, open);
  const std::size_t end = list.find_first_of(",-]", open + 1);
  return end == std::string::npos ? list.substr(0, open) : list.substr(0, open) + list.substr(open + 1, end - open - 1);
}

Launch detect_launch(const GetEnv& get) {
  auto found = read(get, kTorchrun);
  const auto mpi = read(get, kOpenMpi);
  check(!found || !mpi || (found->rank == mpi->rank && found->size == mpi->size), Kind::usage, [&] {
    return cat("RANK, WORLD_SIZE say rank ", found->rank, " of ", found->size,
               ", but OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE say rank ", mpi->rank, " of ", mpi->size,
               "; unset RANK and WORLD_SIZE when mpirun starts the ranks");
  });
  if (!found) found = mpi;
  if (!found) found = read(get, kPmi);
  if (!found) found = read_slurm(get);
  Launch l = found.value_or(Launch{});
  l.nonce = nonce_of(get, l.how);
  find_master(get, &l);
  return l;
}

Launch detect_launch() {
  return detect_launch([](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  });
}

std::string describe(const Launch& l) {
  std::string text = cat("rank ", l.rank, " of ", l.size, " (local rank ", l.local_rank, "), started by ", l.how);
  if (!l.master_addr.empty()) text += cat(", rank 0 listens at ", l.master_addr, ":", l.master_port);
  return l.how == "alone" ? "alone: no mpirun, srun or torchrun started this process" : text;
}

void forget_launch() {
  std::vector<std::string> names{"RANK",        "WORLD_SIZE",  "LOCAL_RANK",      "LOCAL_WORLD_SIZE",
                                 "MASTER_ADDR", "MASTER_PORT", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};
  for (char** at = environ; *at != nullptr; ++at) {
    const std::string entry = *at, name = entry.substr(0, entry.find('='));
    for (const char* prefix : {"OMPI_", "PMIX_", "PMI_", "PRTE_", "SLURM_", "TORCHELASTIC_"})
      if (name.rfind(prefix, 0) == 0) names.push_back(name);
  }
  for (const std::string& name : names) ::unsetenv(name.c_str());
}

}  // namespace eg
