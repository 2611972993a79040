// engine/collectives/preflight.h - what is looked at before ranks make a communicator, because later it fails darkly: room for
// shared memory, and the network interface that a rank would use.
#pragma once
#include <cstdint>
#include <string>

namespace eg {

/// Past this NCCL's shared-memory transport fails with "No space left on device" in containers (nccl issues 290, 342, 525).
inline constexpr std::uint64_t kSharedMemoryPerRank = std::uint64_t(32) << 20;

/// Whether `ranks` processes of one host find room for NCCL in /dev/shm. Throws Error{device} with host, both amounts and the
/// remedy. One rank alone needs none.
void check_shared_memory(const std::string& host, std::uint64_t free_bytes, int ranks);

/// This machine's numeric address on the way to the store `where` ("tcp://n1:29500"), which tells the network that its ranks talk
/// over. Asks the routing table: nothing is sent. "-" where the store has no address, and where there is no way to it.
std::string address_towards(const std::string& where);

}  // namespace eg
