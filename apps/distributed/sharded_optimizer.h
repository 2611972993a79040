// apps/distributed/sharded_optimizer.h - ZeRO stage 1: the optimizer's state divided among ranks (Rajbhandari et al. 2020,
// arXiv:1910.02054).
#pragma once
#include <memory>

#include "engine/collectives/division.h"
#include "optim/optimizer.h"

namespace eg {

/// An optimizer of which every rank keeps the state (moments) of its pieces of the arena. A step updates these from the reduced
/// gradient, of which a rank needs nothing else, and then gathers everybody's weights: the same bits as without sharding (of
/// ARROW: to rounding). division: of the arena.
///
/// Its state in checkpoints is whole, as without sharding: visit_state gathers it and is therefore called by all ranks
/// together; state_restored takes what this rank keeps. ARROW divides its window too, see optim/arrow_division.h. Throws
/// Error{usage} for other methods than sgd, adam, adamw, arrow and norm-control, and for interventions.
std::unique_ptr<Optimizer> make_sharded_optimizer(const MethodSpec& spec, const Parameters& parameters, double lr,
                                                  double weight_decay, const Division& division);

}  // namespace eg
