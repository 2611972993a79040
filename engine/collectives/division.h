// engine/collectives/division.h - a flat array cut into equal parts, one for each rank.
#pragma once
#include <cstdint>
#include <memory>

#include "engine/collectives/collectives.h"
#include "engine/tensor.h"

namespace eg {

/// This rank's part [begin, begin + size) of `whole` elements. Parts have `part` elements, a multiple of 16; the last ones are
/// shorter, or empty, where that does not divide.
struct Division {
  std::shared_ptr<Collectives> ranks;
  std::int64_t whole = 0, part = 0, begin = 0, size = 0;

  static std::int64_t room_behind(int ranks);
  static Division of(std::int64_t whole, std::shared_ptr<Collectives> ranks);
  std::int64_t end() const { return begin + size; }
  /// This rank's part of [whole].
  Tensor own(const Tensor& all) const { return all.slice(begin, size); }
  /// Zeros [whole] with room behind them, as gather() needs it.
  Tensor room(DType dtype, Device device) const;
  /// all [whole], of which each rank has its part in place, has all parts then. Behind it there must be room for equal ones:
  /// room() has it, and so has an array with room_behind(ranks) more elements. Throws Error{internal} where it is missing.
  void gather(const Tensor& all, Stream s) const;
};

}  // namespace eg
