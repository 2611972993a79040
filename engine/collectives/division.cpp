// engine/collectives/division.cpp - see division.h.
#include "engine/collectives/division.h"

#include <algorithm>

#include "engine/error.h"

namespace eg {
namespace {
constexpr std::int64_t kAlign = 16;  // elements: where the arena's parameters begin, too
}

// ceil(whole / n), rounded up to kAlign, exceeds whole / n by less than kAlign.
std::int64_t Division::room_behind(int ranks) { return kAlign * ranks; }

Division Division::of(std::int64_t whole, std::shared_ptr<Collectives> ranks) {
  const std::int64_t n = ranks->size(), part = ((whole + n - 1) / n + kAlign - 1) / kAlign * kAlign;
  const std::int64_t begin = std::min(whole, part * ranks->rank());
  return {std::move(ranks), whole, part, begin, std::min(part, whole - begin)};
}

Tensor Division::room(DType dtype, Device device) const {
  return Tensor::zeros({part * ranks->size()}, dtype, device).slice(0, whole);
}

void Division::gather(const Tensor& all, Stream s) const {
  const std::size_t width = size_of(all.dtype()), parts = std::size_t(part) * std::size_t(ranks->size());
  check(all.size() == whole && all.storage()->bytes() >= std::size_t(all.offset_bytes()) + parts * width,
        Kind::internal, [&] { return cat(ranks->size(), " parts of ", part, " elements do not fit behind ", all); });
  auto* const first = static_cast<std::byte*>(all.data());
  ranks->all_gather(first + std::size_t(part) * std::size_t(ranks->rank()) * width, first, part, all.dtype(), s);
}

}  // namespace eg
