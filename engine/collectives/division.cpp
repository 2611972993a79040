// engine/collectives/division.cpp - see division.h.
#include "engine/collectives/division.h"

#include <algorithm>

#include "engine/error.h"

namespace eg {
namespace {

constexpr std::int64_t kAlign = 16;  // elements: where the arena's parameters begin, too

std::byte* at(const Tensor& t, std::int64_t element) {
  return static_cast<std::byte*>(t.data()) + std::size_t(element) * size_of(t.dtype());
}

}  // namespace

RankPart RankPart::of(std::int64_t count, int rank, int ranks) {
  const std::int64_t part = ((count + ranks - 1) / ranks + kAlign - 1) / kAlign * kAlign;
  const std::int64_t begin = std::min(count, part * rank);
  return {begin, std::min(part, count - begin)};
}

Division Division::of(std::int64_t whole, std::vector<Range> ranges, std::shared_ptr<Collectives> ranks) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  Division d{std::move(ranks), whole, 0, {}, {}};
  std::int64_t next = 0;
  const auto add = [&](std::int64_t end) {
    if (next >= end) return;
    const RankPart own = RankPart::of(end - next, d.ranks->rank(), d.ranks->size());
    if (own.size > 0) d.pieces.push_back({next + own.begin, own.size, d.size});
    d.ranges.push_back({next, end}), d.size += own.size, next = end;
  };
  for (const Range& r : ranges) {
    add(r.begin);
    check(r.begin == next && r.end <= whole, Kind::internal, [&] {
      return cat("a range [", r.begin, ", ", r.end, ") that ranks divide overlaps another, which ends at ", next,
                 ", or leaves the ", whole, " elements that there are");
    });
    add(r.end);
  }
  add(whole);
  return d;
}

Division::Piece Division::own(std::int64_t begin, std::int64_t end) const {
  for (const Piece& p : pieces)
    if (const Piece common = p.within(begin, end); common.size > 0) return common;
  return {};
}

TensorPart Division::part_in_place() const {
  TensorPart p = part();
  for (Piece& piece : p.pieces) piece.own = piece.begin;
  return p;
}

void Division::take(const Tensor& all, const Tensor& kept, Stream s) const {
  for (const Piece& p : pieces)
    runtime(all.device()).copy_within(at(kept, p.own), at(all, p.begin), std::size_t(p.size) * size_of(all.dtype()), s);
}

void Division::put(const Tensor& kept, const Tensor& all, Stream s) const {
  for (const Piece& p : pieces)
    runtime(all.device()).copy_within(at(all, p.begin), at(kept, p.own), std::size_t(p.size) * size_of(all.dtype()), s);
}

void Division::gather(const Tensor& all, Stream s) const {
  for (const Range& r : ranges) gather(all, r, s);
}

void Division::gather(const Tensor& all, const Range& r, Stream s) const {
  check(all.size() == whole, Kind::internal,
        [&] { return cat("a division of ", whole, " elements does not fit ", all); });
  ranks->all_gather(at(all, r.begin), r.end - r.begin, all.dtype(), s);
}

Tensor Division::assemble(const Tensor& kept) const {
  Tensor all = Tensor::zeros({whole}, kept.dtype(), kept.device());
  put(kept, all);
  gather(all, {});
  runtime(kept.device()).synchronize({});
  return all;
}

}  // namespace eg
