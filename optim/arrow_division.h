// optim/arrow_division.h - ARROW's window where ranks divide the arena: every rank keeps its elements of each column.
//
// Inner products are sums over elements, so a rank's Gram matrix is a part of the whole one, and the whole is the sum over
// ranks. Parts are kept as they are and summed into a copy before each solve: one small all-reduce, of the matrices and not of
// the row, because which row is new is known on the device alone.
#pragma once
#include "engine/collectives/division.h"
#include "optim/arrow_targets.h"

namespace eg {

/// What this rank keeps of a run, which lies in one range (size 0: nothing). Without a division: the run.
Division::Piece own_run(const Division* division, const ArrowRun& run);
/// to = sum over ranks of from; both of one shape, any size, f64. Enqueued on s.
void sum_over_ranks(const Division& division, const Tensor& from, const Tensor& to, Stream s);
/// own [rows, n], this rank's elements of a run -> [rows, run.size], everybody's. Called by all ranks together.
Tensor whole_run(const Division& division, const Tensor& own, const ArrowRun& run);
/// The other way: own takes its elements of `whole`.
void take_own(const Division& division, const Tensor& whole, const Tensor& own, const ArrowRun& run);

}  // namespace eg
