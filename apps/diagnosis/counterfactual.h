// apps/diagnosis/counterfactual.h - which modules hold what a task taught, and which ones learning it needs: each is put
// back to the weights from before the task, all else kept; or it is held there while the task is learned again.
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

/// Puts the trainer where its task begins, calls begun(), then makes every update of the task, after_update() after each.
using Learn = std::function<void(const std::function<void()>& begun, const std::function<void()>& after_update)>;

/// The mirror of it: the task is learned again from `before`, with one of the six matrices of all blocks held fast, then with all
/// six of one block. model["frozen.none.accuracy"]: with nothing held; model["frozen.q.drop"] and so on, and
/// blocks["frozen.block.drop"]: what holding costs, not a number where training diverged. Everything else in the network
/// learns. Learns the task 7 + blocks times, says which on `say`, and leaves weights and optimizer state of the last one.
void measure_frozen(Trainer& trainer, const std::vector<double>& before, const Learn& learn,
                    const std::function<double()>& accuracy, const std::function<void(const std::string&)>& say,
                    Diagnosis& d);

}  // namespace eg
