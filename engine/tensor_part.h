// engine/tensor_part.h - what a rank keeps of a tensor that ranks divide.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/shape.h"

namespace eg {

/// Elements [begin, begin + size) of the whole, in row-major order, which are [own, own + size) of what is kept.
struct TensorPiece {
  std::int64_t begin = 0, size = 0, own = 0;
  /// What lies of it in [from, to); size 0: nothing does.
  TensorPiece within(std::int64_t from, std::int64_t to) const {
    const std::int64_t first = std::max(begin, from), last = std::min(begin + size, to);
    return first < last ? TensorPiece{first, last - first, own + first - begin} : TensorPiece{};
  }
};

/// A tensor of shape `whole`, of which these pieces are kept, in ascending order.
struct TensorPart {
  Shape whole;
  std::vector<TensorPiece> pieces;
};

}  // namespace eg
