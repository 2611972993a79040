// apps/distributed/sharded_optimizer.h - ZeRO stage 1: the optimizer's state divided among ranks (Rajbhandari et al. 2020,
// arXiv:1910.02054).
#pragma once
#include <memory>

#include "engine/collectives/collectives.h"
#include "optim/optimizer.h"

namespace eg {

/// An optimizer of which every rank keeps the state (moments) of one part of the arena. A step updates that part from the
/// reduced gradient, which all ranks have, and then gathers everybody's weights: the same bits as without sharding. Parts are
/// equal but for the last ones, in elements that are a multiple of 16; sizes need not divide.
///
/// Its state in checkpoints is whole, as without sharding: visit_state gathers it and is therefore called by all ranks
/// together; state_restored takes this rank's part. Throws Error{usage} for a method that is not elementwise over the arena
/// (known: sgd, adam, adamw).
std::unique_ptr<Optimizer> make_sharded_optimizer(const MethodSpec& spec, const Parameters& parameters, double lr,
                                                  double weight_decay, std::shared_ptr<Collectives> ranks);

}  // namespace eg
