// optim/segments.h - which ranges of the flat arena an update touches.
#pragma once
#include <vector>

#include "optim/optimizer.h"

namespace eg {

/// The trainable parameters as ranges of the arena, in its order: as few as possible, one per run of neighbours that
/// agree on weight decay. Frozen parameters are in none. The zero padding between neighbours is swallowed: an update of
/// a zero weight by a zero gradient is zero.
std::vector<Segment> segments_of(const Parameters& p, double weight_decay, int slot = 0);

}  // namespace eg
