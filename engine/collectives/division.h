// engine/collectives/division.h - a flat array divided among ranks, each of which keeps its pieces.
//
// It is cut into ranges (the buckets of the gradient), and each range into one part a rank: so every rank has something to do
// with each bucket, whenever it arrives, and none has to take in a whole one alone.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/collectives/collectives.h"
#include "engine/tensor.h"
#include "engine/tensor_part.h"

namespace eg {

struct Division {
  /// Elements of the whole.
  struct Range {
    std::int64_t begin = 0, end = 0;
  };
  using Piece = TensorPiece;

  std::shared_ptr<Collectives> ranks;
  std::int64_t whole = 0, size = 0;  // elements of all, and of all pieces of this rank
  std::vector<Range> ranges;         // ascending; every element is in one of them
  std::vector<Piece> pieces;         // of this rank, ascending, none of them empty

  /// `ranges` are disjoint; what they leave out of `whole` becomes ranges of its own.
  static Division of(std::int64_t whole, std::vector<Range> ranges, std::shared_ptr<Collectives> ranks);
  /// This rank's part of [begin, end), which lies in one range; size 0: it has none.
  Piece own(std::int64_t begin, std::int64_t end) const;
  /// kept [size] = this rank's pieces of all [whole], and the other way.
  void take(const Tensor& all, const Tensor& kept, Stream s = {}) const;
  void put(const Tensor& kept, const Tensor& all, Stream s = {}) const;
  /// all [whole], of which each rank has its pieces in place, has everything then; or what lies in one range.
  void gather(const Tensor& all, Stream s) const;
  void gather(const Tensor& all, const Range& range, Stream s) const;
  /// This rank's part of a tensor [whole], of which it keeps its pieces one behind the other, or all with only these up to date.
  TensorPart part() const { return {{whole}, pieces}; }
  TensorPart part_in_place() const;
  /// [whole], from what each rank keeps. All ranks call it together; it waits for the device.
  Tensor assemble(const Tensor& kept) const;
};

}  // namespace eg
