// apps/distributed/gradient_buckets.cpp - see gradient_buckets.h.
#include "apps/distributed/gradient_buckets.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/kernels.h"

namespace eg {

std::int64_t GradientBuckets::Bucket::elements() const {
  std::int64_t n = 0;
  for (const Range& r : ranges) n += r.end - r.begin;
  return n;
}

GradientBuckets::GradientBuckets(std::span<Param* const> params, const ParamArena& arena, int depth,
                                 std::shared_ptr<Collectives> ranks, std::int64_t least_bytes, bool narrow)
    : arena_(arena), ranks_(std::move(ranks)), final_(std::size_t(depth) + 1, false), side_(arena.device) {
  for (int block = depth; block-- > 0;) add_group(params, block, depth, least_bytes);
  add_group(params, depth, depth, least_bytes);
  if (!narrow || ranks_->size() == 1 || arena_.grad.dtype() == DType::bf16) return;
  std::int64_t longest = 0;
  for (const Bucket& b : buckets_)
    for (const Range& r : b.ranges) longest = std::max(longest, r.end - r.begin);
  travelling_ = Tensor::zeros({longest}, DType::bf16, arena_.device);
}

/// Parameters come in forward order, the arena holds them in the opposite one.
void GradientBuckets::add_group(std::span<Param* const> params, int group, int depth, std::int64_t least_bytes) {
  Bucket own{{group}, {}};
  for (std::size_t i = params.size(); i-- > 0;) {
    const Param& p = *params[i];
    if (p.frozen || (p.block >= 0 ? p.block : depth) != group) continue;
    const std::int64_t end = i == 0 ? arena_.size : params[i - 1]->offset;  // with the padding, which is zero
    if (!own.ranges.empty() && own.ranges.back().end == p.offset)
      own.ranges.back().end = end;
    else
      own.ranges.push_back({p.offset, end});
  }
  if (own.ranges.empty()) return;
  const bool joins = group < depth && !buckets_.empty() && buckets_.back().groups.size() == 1 &&
                     buckets_.back().elements() * std::int64_t(size_of(arena_.grad.dtype())) < least_bytes;
  if (!joins) {
    buckets_.push_back(std::move(own));
    return;
  }
  Bucket& last = buckets_.back();
  last.groups.push_back(group);
  for (const Range& r : own.ranges)
    if (last.ranges.back().end == r.begin)
      last.ranges.back().end = r.end;
    else
      last.ranges.push_back(r);
}

Division GradientBuckets::division() const {
  std::vector<Range> all;
  for (const Bucket& b : buckets_) all.insert(all.end(), b.ranges.begin(), b.ranges.end());
  return Division::of(arena_.size, std::move(all), ranks_);
}

void GradientBuckets::begin(bool own) {
  std::fill(final_.begin(), final_.end(), false);
  next_ = 0, own_ = own;
}

void GradientBuckets::local_final(int group, Stream main, const Reduced& reduced) {
  if (ranks_->size() == 1) return reduced(group, main);
  final_.at(std::size_t(group)) = true;
  const auto complete = [&](const Bucket& b) {
    return std::all_of(b.groups.begin(), b.groups.end(), [&](int g) { return final_[std::size_t(g)]; });
  };
  while (next_ < buckets_.size() && complete(buckets_[next_])) reduce_next(main, reduced);
}

void GradientBuckets::finish(Stream main, const Reduced& reduced) {
  if (ranks_->size() == 1) return;
  while (next_ < buckets_.size()) reduce_next(main, reduced);
  side_.join(main);
}

void GradientBuckets::reduce_next(Stream main, const Reduced& reduced) {
  const Bucket& bucket = buckets_[next_++];
  const Stream side = side_.fork(main);
  for (const Range& r : bucket.ranges) reduce(r, side);
  for (const int group : bucket.groups) reduced(group, side);
}

/// Ranges come one after the other on one stream, so one buffer serves all of them.
void GradientBuckets::reduce(const Range& range, Stream side) const {
  const std::int64_t count = range.end - range.begin;
  const Tensor gradient = arena_.grad.slice(range.begin, count);
  const Tensor sent = travelling_ ? travelling_.slice(0, count) : gradient;
  if (travelling_) EVERGRAD_CALL(arena_.device, cast, Cast{.from = gradient.view(), .to = sent.view()}, side);
  own_ ? ranks_->reduce_scatter(sent.data(), count, sent.dtype(), side)
       : ranks_->all_reduce(sent.data(), count, sent.dtype(), side);
  if (!travelling_) return;
  const RankPart part = own_ ? RankPart::of(count, ranks_->rank(), ranks_->size()) : RankPart{0, count};
  if (part.size == 0) return;
  const Tensor from = sent.slice(part.begin, part.size), to = gradient.slice(part.begin, part.size);
  EVERGRAD_CALL(arena_.device, cast, Cast{.from = from.view(), .to = to.view()}, side);
}

}  // namespace eg
