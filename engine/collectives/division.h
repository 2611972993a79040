// engine/collectives/division.h - a flat array cut into equal parts, one for each rank.
#pragma once
#include <cstdint>
#include <memory>

#include "engine/collectives/collectives.h"
#include "engine/tensor.h"

namespace eg {

/// This rank's part [begin, begin + size) of `whole` elements.
struct Division {
  std::shared_ptr<Collectives> ranks;
  std::int64_t whole = 0, begin = 0, size = 0;

  static Division of(std::int64_t whole, std::shared_ptr<Collectives> ranks);
  std::int64_t end() const { return begin + size; }
  /// This rank's part of [whole].
  Tensor own(const Tensor& all) const { return all.slice(begin, size); }
  /// all [whole], of which each rank has its part in place, has all parts then.
  void gather(const Tensor& all, Stream s) const;
};

}  // namespace eg
