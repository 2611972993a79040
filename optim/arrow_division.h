// optim/arrow_division.h - ARROW's window where ranks divide the arena: every rank keeps its elements of each column.
//
// Inner products are sums over elements, so a rank's Gram matrix is a part of the whole one, and the whole is the sum over
// ranks. Parts are kept as they are and summed into a copy before the solves: one small all-reduce for all groups, of the
// matrices and not of their rows, because which row is new is known on the device alone. Ranks that keep everything
// (--zero 0) add up the same parts, so that their steps have the same bits.
#pragma once
#include "engine/collectives/division.h"
#include "optim/arrow_targets.h"

namespace eg {

/// What this rank keeps of a run, which lies in one range (size 0: nothing). Without a division: the run.
Division::Piece own_run(const Division* division, const ArrowRun& run);
/// A piece of what a rank keeps, in whose sums it takes part or not.
struct Stretch {
  Division::Piece piece;
  bool summed = true;
};
/// `kept` of a run, cut at the piece that this rank adds up, which is always there and may be empty. Null: all of it.
std::vector<Stretch> stretches_of(const Division* sums, const Division::Piece& kept);
/// What [rows, own_run().size] is of [rows, run.size]; of a vector, [run.size], with rows 0.
TensorPart part_of_run(const Division& division, const ArrowRun& run, std::int64_t rows);

}  // namespace eg
