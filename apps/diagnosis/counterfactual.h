// apps/diagnosis/counterfactual.h - which modules hold what a task taught: each is put back to the weights from before
// the task, all else kept, and the loss of accuracy is measured (methods.md D.4, iii).
#pragma once
#include <functional>
#include <vector>

#include "apps/diagnosis/diagnosis.h"

namespace eg {

/// Fills blocks["restore.q.drop"] and so on for the six matrices of every block, and model["restore.q.drop"] for all
/// blocks at once: accuracy now minus accuracy with the module restored, so a module that the task does not need gives 0.
/// `before` is laid out as the arena (Error{shape} otherwise); `accuracy` tests the network as it is. 6 (blocks + 1) + 1
/// tests; weights are put back exactly.
void measure_restores(Trainer& trainer, const std::vector<double>& before, const std::function<double()>& accuracy,
                      Diagnosis& d);

}  // namespace eg
