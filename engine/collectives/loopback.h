// engine/collectives/loopback.h - several ranks in one process, for tests: each is a thread, they meet at a barrier.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "engine/collectives/collectives.h"

namespace eg {

/// `size` ranks that know each other, in order; each is used by one thread. Host devices (cpu, reference) only: a barrier
/// within another device's stream would hold up the ranks that share it. Sums are ordered (ordered_sum.h), and every
/// operation checks that all ranks called the same one with the same sizes: Error{internal} on all of them otherwise. After
/// abort() on one rank, the operations of all throw Error{io} with its reason.
std::vector<std::unique_ptr<Collectives>> loopback_ranks(int size);

/// Runs body(rank) on `size` threads, one for each loopback rank. An exception on one rank aborts the others, and is thrown
/// here (the first in time).
void run_loopback(int size, const std::function<void(std::shared_ptr<Collectives>)>& body);

}  // namespace eg
