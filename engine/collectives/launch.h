// engine/collectives/launch.h - how this process was started, and which of how many ranks it is.
//
// Starters tell a process its place by environment variables, each in words of its own. In order of who wins: torchrun and
// everything that imitates it, Open MPI's mpirun, starters that speak PMI (MPICH, Intel MPI, Cray), Slurm's srun. A later one
// of the list may be around the process without having started it (mpirun inside a Slurm allocation), so it is not consulted.
#pragma once
#include <functional>
#include <optional>
#include <string>

namespace eg {

struct Launch {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the ranks of this host; local_size 0: the starter did not say
  std::string how = "alone";           // "alone", "torchrun", "mpirun", "PMI" or "srun"
  std::string master_addr;             // where rank 0 listens; empty: nobody said
  int master_port = 0;                 // 0: nobody said
  /// Equal on all ranks of one start and different in the next: a job's number. Empty when the starter has none.
  std::string nonce;
};

/// The value of an environment variable, or nothing.
using GetEnv = std::function<std::optional<std::string>(const char*)>;

/// Reads RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE (torchrun), OMPI_COMM_WORLD_* (Open MPI), PMI_RANK, PMI_SIZE (PMI),
/// SLURM_PROCID, SLURM_STEP_NUM_TASKS or SLURM_NTASKS, SLURM_LOCALID, SLURM_STEP_ID (Slurm), and MASTER_ADDR, MASTER_PORT
/// whoever started it. Where nobody sets the last two: Slurm's first host with a port made from the job's number, or this
/// machine when all ranks are on it. TORCHELASTIC_USE_AGENT_STORE=True (torchrun's own store listens at MASTER_PORT) means the
/// next port. A pure function of `get`.
/// Throws Error{usage} that names the variables: a part of a set is missing, a value is no number or out of range, or
/// torchrun's variables contradict Open MPI's.
Launch detect_launch(const GetEnv& get);
/// The same for this process's environment.
Launch detect_launch();

/// "rank 2 of 4 (local rank 2), started by srun, rank 0 listens at n1:15123".
std::string describe(const Launch& launch);

/// The variables by which detect_launch would find a place: what a process must remove from the environment before it starts
/// programs that are no ranks. Removes them from this process's environment.
void forget_launch();

/// "n[07-09,12],m3" -> "n07": the first name of a Slurm node list.
std::string first_host(const std::string& node_list);

}  // namespace eg
