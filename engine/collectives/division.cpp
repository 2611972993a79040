// engine/collectives/division.cpp - see division.h.
#include "engine/collectives/division.h"

#include <algorithm>

#include "engine/error.h"

namespace eg {
namespace {
constexpr std::int64_t kAlign = 16;  // elements: where the arena's parameters begin, too
}

RankPart RankPart::of(std::int64_t count, int rank, int ranks) {
  const std::int64_t part = ((count + ranks - 1) / ranks + kAlign - 1) / kAlign * kAlign;
  const std::int64_t begin = std::min(count, part * rank);
  return {begin, std::min(part, count - begin)};
}

Division Division::of(std::int64_t whole, std::shared_ptr<Collectives> ranks) {
  const RankPart own = RankPart::of(whole, ranks->rank(), ranks->size());
  return {std::move(ranks), whole, own.begin, own.size};
}

void Division::gather(const Tensor& all, Stream s) const {
  check(all.size() == whole, Kind::internal,
        [&] { return cat("a division of ", whole, " elements does not fit ", all); });
  ranks->all_gather(all.data(), whole, all.dtype(), s);
}

}  // namespace eg
