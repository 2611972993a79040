// engine/collectives/mpi.h - ranks that mpirun started, over MPI: for host devices and the emulated one.
#pragma once
#include <functional>
#include <memory>

#include "engine/collectives/collectives.h"

namespace eg {

/// Initialises MPI, once per process, and finalises it when the object dies. `device`: where the data of stream operations
/// lie; its memory must be the host's (cpu, reference, emulated), whose stream then calls MPI in order. Always
/// deterministic: parts are exchanged and added in ascending order of ranks (ordered_sum.h), at 2 (N-1)/N of the data sent
/// per rank, no more than a ring. Every failed call throws Error{io} that names it. Throws Error{device} for a CUDA device,
/// Error{usage} in a build without MPI.
std::unique_ptr<Collectives> mpi_ranks(Device device);
/// How many of its stream operations are complete, for WatchOptions::device_progress where a stream runs them later.
std::function<std::uint64_t()> mpi_progress(const Collectives& mpi);

/// False in a build without MPI.
bool have_mpi();

}  // namespace eg
