// optim/arrow_division.h - ARROW's window where ranks divide the arena: every rank keeps its elements of each column.
//
// Inner products are sums over elements, so a rank's Gram matrix is a part of the whole one, and the whole is the sum over
// ranks. Parts are kept as they are and summed into a copy before the solves: one small all-reduce for all groups, of the
// matrices and not of their rows, because which row is new is known on the device alone.
#pragma once
#include "engine/collectives/division.h"
#include "optim/arrow_targets.h"

namespace eg {

/// What this rank keeps of a run, which lies in one range (size 0: nothing). Without a division: the run.
Division::Piece own_run(const Division* division, const ArrowRun& run);
/// own [rows, n], this rank's elements of a run -> [rows, run.size], everybody's. Called by all ranks together.
Tensor whole_run(const Division& division, const Tensor& own, const ArrowRun& run);
/// The other way: own takes its elements of `whole`.
void take_own(const Division& division, const Tensor& whole, const Tensor& own, const ArrowRun& run);

}  // namespace eg
