// cuda/kernels/segments.cuh - passes over segments of the flat arena: each segment is cut into chunks, a block works on
// one, and one launch covers as many segments as its parameters can carry: 106, or 87 of weights that a plasticity
// method changes. Neighbours with the same settings come as one segment (optim/segments.h); a ViT of 12 blocks has 101.
#pragma once
#include "cuda/kernels/operand.cuh"
#include "engine/records.h"

namespace eg::EVERGRAD_BACKEND {

inline constexpr std::size_t kTableBytes = 3840;  // of the 4096 that a launch's parameters may have
inline constexpr int kUpdateThreads = 256;
inline constexpr std::int64_t kUpdateChunk = 2 * kUpdateThreads * kPack;  // elements of one block
inline constexpr std::int64_t kNormChunk = 8 * kUpdateThreads * kPack;

/// Block b works on chunk b. A chunk begins at its segment's begin plus a multiple of the chunk size, and packs lie at
/// multiples of 8 of the arena.
template <class S>
struct TableOf {
  static constexpr int kMost = int((kTableBytes - 2 * sizeof(std::int32_t)) / (sizeof(S) + sizeof(std::int32_t)));
  S segment[kMost];
  std::int32_t first_chunk[kMost + 1];  // chunks before segment i
  std::int32_t count;
};
using SegmentTable = TableOf<Segment>;

#if EVERGRAD_HAS_DEVICE_WORDS

struct Chunk {
  int segment;
  std::int64_t begin, end;
};

template <class S>
__device__ __forceinline__ Chunk chunk_of(const TableOf<S>& t, std::int64_t elements) {
  int s = 0;
  while (s + 1 < t.count && std::int32_t(blockIdx.x) >= t.first_chunk[s + 1]) ++s;
  const std::int64_t begin = t.segment[s].begin + (std::int64_t(blockIdx.x) - t.first_chunk[s]) * elements;
  return {s, begin, min_of(begin + elements, t.segment[s].end)};
}

/// Calls f(i, first, count, wide) for this thread's packs of the chunk: elements first .. first + count of pack i.
template <class F>
__device__ __forceinline__ void for_each_pack_of(const Chunk& c, bool wide, const F& f) {
  for (std::int64_t i = c.begin / kPack * kPack + std::int64_t(threadIdx.x) * kPack; i < c.end;
       i += std::int64_t(blockDim.x) * kPack) {
    const std::int64_t first = max_of(i, c.begin), last = min_of(i + kPack, c.end);
    if (first < last) f(first, int(last - first), wide && last - first == kPack);
  }
}

#endif  // EVERGRAD_HAS_DEVICE_WORDS

}  // namespace eg::EVERGRAD_BACKEND
