// apps/explain/update_state.h - what an update rule keeps per weight, which is what its update costs.
#pragma once
#include "optim/optimizer.h"

namespace eg {

/// How many numbers a rule keeps for every weight (SGD with momentum 1, AdamW 2), by building it on a small network and
/// counting what visit_moments shows: any registered rule, those of plugins too. Throws Error{usage} for a method whose
/// cost these numbers do not tell, with the reason: interventions, rules with products or with other state.
double moments_per_weight(const MethodSpec& method);

}  // namespace eg
