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

class Collectives {
 public:
  virtual ~Collectives() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual bool deterministic() const = 0;
  /// "single", "loopback", "mpi" or "nccl".
  virtual std::string name() const = 0;

  /// data [count] of every rank becomes the sum over ranks. f32, f64 or bf16 (summed in fp32, rounded once).
  virtual void all_reduce(void* data, std::int64_t count, DType dtype, Stream s) = 0;
  /// in [count * size] of every rank -> out [count]: the sum of everybody's part `rank`. out may be in's own part `rank`.
  virtual void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype, Stream s) = 0;
  /// in [count] of every rank -> out [count * size] in order of ranks. in may be out's own part `rank`.
  virtual void all_gather(const void* in, void* out, std::int64_t count, DType dtype, Stream s) = 0;
  virtual void broadcast(void* data, std::int64_t bytes, int root, Stream s) = 0;

  /// Host memory, at once. all_gather_bytes: the texts of all ranks, in order; lengths may differ.
  virtual void barrier() = 0;
  virtual std::vector<std::string> all_gather_bytes(const std::string& mine) = 0;
  /// Every number becomes its sum over ranks, added in ascending order of ranks: the same bits everywhere.
  virtual void sum_on_host(std::span<double> values);

  /// Ends the run on all ranks after a failure on this one: never collective, returns or exits within seconds.
  virtual void abort(const std::string& why) noexcept = 0;
};

/// One rank alone; every operation is a copy on `device`, or nothing.
std::unique_ptr<Collectives> single_rank(Device device = kCpu);

}  // namespace eg
