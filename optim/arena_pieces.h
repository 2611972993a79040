// optim/arena_pieces.h - the stretches of the arena that this rank updates: all of it, or with --zero 1 its pieces.
//
// Weights and gradients lie in the arena; the state of an update (moments) exists for this rank's pieces alone and lies there
// without gaps. An elementwise update runs over one piece at a time, and its segments are cut to it: every element sees the
// same numbers as in an update of the whole.
#pragma once
#include <optional>
#include <vector>

#include "optim/optimizer.h"

namespace eg {

struct ArenaPiece {
  std::int64_t begin = 0, size = 0;  // in the arena
  std::int64_t own = 0;              // where its state begins
  std::vector<Segment> segments;     // counted from `begin`

  /// Its elements of an array that is laid out as the arena, and of one that holds this rank's state; empty for an empty tensor.
  TensorView of(const Tensor& arena) const { return view(arena, begin, size); }
  TensorView state(const Tensor& kept) const { return view(kept, own, size); }
  /// Its masters, which ranks may divide.
  TensorView master(const ParamArena& arena) const {
    return arena.own_master ? state(arena.own_master) : of(arena.master);
  }
  static TensorView view(const Tensor& t, std::int64_t begin, std::int64_t size);
};

/// Without a division one piece, the whole arena; else this rank's, each with what it has of the segments.
std::vector<ArenaPiece> arena_pieces(const Parameters& parameters, const std::vector<Segment>& segments);
/// Zeros, one for each element of the arena whose state this rank keeps, in the type of the weights.
Tensor arena_state(const Parameters& parameters);
/// What such a tensor is of one for the whole arena; nothing: it is that one.
std::optional<TensorPart> arena_part(const Parameters& parameters);

}  // namespace eg
