// optim/unit_steps.h - Adam where hidden units are replaced: matrices whose elements count the updates of their unit.
#pragma once
#include <vector>

#include "optim/optimizer.h"

namespace eg {

/// The segments without the matrices of these units; a matrix that is null belongs to another rule.
std::vector<Segment> without_units(const std::vector<Segment>& segments, const std::vector<Units>& units);
/// adam_update of those matrices: `a` says everything but segments and counts.
void adam_update_by_unit(Device device, AdamUpdate a, const std::vector<Units>& units, double weight_decay, int slot,
                         Stream stream);

}  // namespace eg
