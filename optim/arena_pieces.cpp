// optim/arena_pieces.cpp - see arena_pieces.h.
#include "optim/arena_pieces.h"

#include <algorithm>

#include "engine/collectives/division.h"

namespace eg {

TensorView ArenaPiece::view(const Tensor& t, std::int64_t begin, std::int64_t size) {
  if (!t) return {};
  return {static_cast<char*>(t.data()) + std::size_t(begin) * size_of(t.dtype()), t.dtype(), {size}};
}

std::vector<ArenaPiece> arena_pieces(const Parameters& p, const std::vector<Segment>& segments) {
  if (!p.division) return {{0, p.arena->size, 0, segments}};
  std::vector<ArenaPiece> pieces;
  for (const Division::Piece& own : p.division->pieces) {
    ArenaPiece piece{own.begin, own.size, own.own, {}};
    for (Segment s : segments) {
      s.begin = std::max(s.begin - own.begin, std::int64_t(0)), s.end = std::min(s.end - own.begin, own.size);
      if (s.begin < s.end) piece.segments.push_back(s);
    }
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

Tensor arena_state(const Parameters& p) {
  const ParamArena& arena = *p.arena;
  return Tensor::zeros({p.division ? p.division->size : arena.size}, arena.master_type(), arena.device);
}

std::optional<TensorPart> arena_part(const Parameters& p) {
  return p.division ? std::optional(p.division->part()) : std::nullopt;
}

}  // namespace eg
