// engine/collectives/nccl.h - collectives between GPUs, behind the same interface. The engine knows only this door; what is
// behind it lies in cuda/device/nccl.cpp and is in builds with EVERGRAD_CUDA where NCCL was found.
//
// NOT RUN ON A GPU YET: compiled and linked only.
#pragma once
#include <functional>
#include <memory>

#include "engine/collectives/collectives.h"
#include "engine/collectives/store.h"

namespace eg {

/// Up to so many ranks deal out their bf16 gradients and add them up in fp32, rounded once; more of them leave sums to NCCL, which
/// rounds at every hop, but sends fewer messages (docs/distributed.md, "Between GPUs").
inline constexpr int kMostDealt = 16;

struct NcclOptions {
  Device device;
  int local_size = 1;           // ranks of this host
  bool deterministic = false;   // sums in ascending order of ranks, by our own kernel; pins NCCL's ring and protocol
  bool share_gpu = false;       // two ranks on one GPU, for tests of correctness
  double init_seconds = 120.0;  // until a communicator that does not come about is given up
  double abort_seconds = 5.0;   // until an abort that hangs becomes the end of the process
};

/// A communicator of all ranks of the store. Collective: every rank calls it. The store must outlive it (barrier() and
/// all_gather_bytes() go over it). Throws Error{device}: NCCL is not in this build, or refuses, with its own words; Error{io}:
/// a rank did not come within init_seconds.
std::unique_ptr<Collectives> nccl_collectives(Store& store, const NcclOptions& options);
/// How many collectives of a communicator are complete: a counter in host memory that the device writes, for
/// WatchOptions::device_progress. Reading it calls nothing.
std::function<std::uint64_t()> nccl_progress(const Collectives& nccl);

/// What cuda/ puts behind the door.
struct NcclBackend {
  std::unique_ptr<Collectives> (*make)(Store&, const NcclOptions&) = nullptr;
  std::function<std::uint64_t()> (*progress)(const Collectives&) = nullptr;
};
void register_nccl(NcclBackend backend);
bool have_nccl();

}  // namespace eg
