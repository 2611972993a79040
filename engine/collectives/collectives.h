// engine/collectives/collectives.h - what the ranks of one run do together: sums, copies and meetings.
//
// A rank is one process with one device (or, in `loopback`, one thread). Every rank calls the same operations in the same order
// with the same sizes; an implementation may check that, none may reorder. Device operations are enqueued on a stream and
// ordered with what else runs there. The word for a sum's order is determinism: with deterministic() the sum is taken in
// ascending order of ranks, in the same grouping for every element, so that repeats are bitwise equal.
//
// Host operations (barrier, all_gather_bytes, sum_on_host) do not wait for streams: synchronise first, so that all ranks have the same
// operations behind them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/dtype.h"

namespace eg {

/// One rank's part of [count]: equal parts that begin at multiples of 16 elements, so that each is aligned as the whole is; the
/// last ones are shorter, or empty, where that does not divide.
struct RankPart {
  std::int64_t begin = 0, size = 0;
  static RankPart of(std::int64_t count, int rank, int ranks);
};

class Collectives {
 public:
  virtual ~Collectives() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual bool deterministic() const = 0;
  /// "single", "loopback", "mpi" or "nccl".
  virtual std::string name() const = 0;

  /// data [count] of every rank becomes the sum over ranks. f32, f64 or bf16 (summed in fp32, rounded once; NCCL
  /// among more than kMostDealt ranks: rounded at every hop).
  virtual void all_reduce(void* data, std::int64_t count, DType dtype, Stream s) = 0;
  /// This rank's part (RankPart) of data [count] becomes the sum over ranks, in the bits of all_reduce where that is
  /// deterministic; the rest of data is left as it was. Half of an all_reduce: all_gather is the other half.
  virtual void reduce_scatter(void* data, std::int64_t count, DType dtype, Stream s) = 0;
  /// data [count], of which each rank has its part (RankPart), has all parts then.
  virtual void all_gather(void* data, std::int64_t count, DType dtype, Stream s) = 0;
  virtual void broadcast(void* data, std::int64_t bytes, int root, Stream s) = 0;

  /// Host memory, at once. all_gather_bytes: the texts of all ranks, in order; lengths may differ.
  virtual void barrier() = 0;
  virtual std::vector<std::string> all_gather_bytes(const std::string& mine) = 0;
  /// Every number becomes its sum over ranks, added in ascending order of ranks: the same bits everywhere.
  virtual void sum_on_host(std::span<double> values);

  /// Bytes that this rank has sent to others in device operations; 0 where nobody counts them (one rank alone, GPUs).
  virtual std::int64_t bytes_sent() const { return 0; }

  /// Ends the run on all ranks after a failure on this one: never collective, returns or exits within seconds.
  virtual void abort(const std::string& why) noexcept = 0;
};

/// One rank alone, whose sums have one term: no operation does anything.
std::unique_ptr<Collectives> single_rank();

}  // namespace eg
