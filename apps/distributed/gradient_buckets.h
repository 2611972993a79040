// apps/distributed/gradient_buckets.h - the gradient, summed over ranks while backward goes on.
//
// The gradient arena is laid out in order of backward completion, so the gradients of one or two transformer blocks are one
// range of it: a bucket. When all of a bucket's groups are final it is reduced on a stream of its own, and only behind that, on
// the same stream, the optimizer hears that the groups are final: ARROW observes the reduced gradient, the same bits on every
// rank. Where ranks divide the update (--zero 1) each receives the sum of its part of every bucket alone: half the messages.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/collectives/division.h"
#include "engine/side_stream.h"
#include "layers/param.h"

namespace eg {

class GradientBuckets {
 public:
  /// A group's gradient is final and, with several ranks, reduced, for whatever is enqueued on this stream from now on.
  using Reduced = std::function<void(int group, Stream stream)>;

  /// depth: number of blocks; group `depth` is all that lies outside of blocks, as in Tape::watch. A bucket holds one block,
  /// or two where one is smaller than `least_bytes`; what is outside of blocks comes last. Frozen parameters are left out.
  /// narrow: gradients of a wider type travel as bf16: each rank's is rounded, ranks add these up as their backend does (Collectives::all_reduce).
  /// Half the bytes of fp32.
  GradientBuckets(std::span<Param* const> params, const ParamArena& arena, int depth,
                  std::shared_ptr<Collectives> ranks, std::int64_t least_bytes = kLeastBytes, bool narrow = false);
  static constexpr std::int64_t kLeastBytes = std::int64_t(8) << 20;

  /// A gradient begins. `own`: a rank needs the sums of its pieces (division()) alone, and the rest of the arena keeps what
  /// this rank has found itself.
  void begin(bool own = false);
  /// Group `group` is final on this rank, for what follows on `main`. Enqueues the sum of every bucket that is now
  /// complete, in the same order on all ranks whatever the order of calls, then calls `reduced` for its groups.
  void local_final(int group, Stream main, const Reduced& reduced);
  /// The gradient is complete: reduces what is left; what follows on `main` sees all sums.
  void finish(Stream main, const Reduced& reduced);

  using Range = Division::Range;  // of the arena
  struct Bucket {
    std::vector<int> groups;  // in order of completion
    std::vector<Range> ranges;
    std::int64_t elements() const;
  };
  const std::vector<Bucket>& buckets() const { return buckets_; }
  /// The arena among ranks: every range of every bucket is divided among all of them.
  Division division() const;

 private:
  void add_group(std::span<Param* const> params, int group, int depth, std::int64_t least_bytes);
  void reduce_next(Stream main, const Reduced& reduced);
  void reduce(const Range& range, Stream side) const;

  const ParamArena& arena_;
  std::shared_ptr<Collectives> ranks_;
  std::vector<Bucket> buckets_;
  std::vector<bool> final_;  // per group
  std::size_t next_ = 0;     // the bucket to reduce next
  bool own_ = false;         // this gradient: reduce_scatter instead of all_reduce
  Tensor travelling_;        // bf16, room for the longest range; empty: gradients travel as they are
  SideStream side_;
};

}  // namespace eg
