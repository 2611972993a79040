// tests/ranks/against_loopback.h - a backend of collectives against the loopback backend: the same data, the same operations, the
// same bits. nccl_probe.cpp asks it on a GPU, test_engine and test_devices over MPI on the processor.
#pragma once
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/collectives/loopback.h"
#include "engine/collectives/nccl.h"
#include "engine/error.h"

namespace eg::test {

/// Element i of rank r's data. Whole numbers have the same sum in any order; uneven ones show the order, and where it is rounded.
inline double rank_value(int r, std::int64_t i, bool whole) {
  const double v = double((i * 2654435761 + r * 40503) % 1009);
  return whole ? v : (v - 504.0) * (i % 3 == 0 ? 1e-4 : i % 3 == 1 ? 1.0 : 37.7);
}

template <class T>
std::vector<T> data_of_rank(int r, std::int64_t n, bool whole) {
  std::vector<T> v(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) v[std::size_t(i)] = T(float(rank_value(r, i, whole)));
  return v;
}

/// Operations on one piece of memory, one after the other.
using RankOperations = std::function<void(Collectives&, void* data, Stream)>;

/// What the operations leave on rank `rank` of as many loopback ranks as `size`, in host memory.
template <class T>
std::vector<T> by_loopback(int size, int rank, std::int64_t n, bool whole, const RankOperations& run) {
  std::vector<T> left;
  run_loopback(size, [&](const std::shared_ptr<Collectives>& c) {
    std::vector<T> mine = data_of_rank<T>(c->rank(), n, whole);
    run(*c, mine.data(), {});
    if (c->rank() == rank) left = std::move(mine);
  });
  return left;
}

/// What they leave on this rank of `c`, in memory of the device.
template <class T>
std::vector<T> on_device(Collectives& c, Device device, Stream s, std::int64_t n, bool whole,
                         const RankOperations& run) {
  DeviceRuntime& r = runtime(device);
  std::vector<T> values = data_of_rank<T>(c.rank(), n, whole);
  const std::size_t bytes = values.size() * sizeof(T);
  const std::unique_ptr<void, std::function<void(void*)>> data(r.allocate(bytes), [&](void* p) { r.release(p); });
  r.copy_from_host(data.get(), values.data(), bytes, s);
  run(c, data.get(), s);
  r.copy_to_host(values.data(), data.get(), bytes, s);
  r.synchronize(s);
  return values;
}

template <class T>
void compare_type(Collectives& c, Device device, Stream s, std::int64_t longest, bool whole,
                  std::vector<std::string>& wrong) {
  const DType t = dtype_of<T>;
  for (const std::int64_t n : {std::int64_t(1), std::int64_t(7), std::int64_t(8), std::int64_t(4099), longest}) {
    const auto compare = [&](const char* what, const RankOperations& run) {
      const std::vector<T> have = on_device<T>(c, device, s, n, whole, run);
      const std::vector<T> want = by_loopback<T>(c.size(), c.rank(), n, whole, run);
      for (std::size_t i = 0; i < want.size(); ++i)
        if (std::memcmp(&have[i], &want[i], sizeof(T)) != 0) {
          wrong.push_back(cat(what, " of ", t, " [", n, "], ", whole ? "whole" : "uneven", " numbers: element ", i,
                              " is ", double(have[i]), ", by loopback ", double(want[i])));
          return;
        }
    };
    compare("all_reduce", [=](Collectives& x, void* data, Stream on) { x.all_reduce(data, n, t, on); });
    compare("reduce_scatter", [=](Collectives& x, void* data, Stream on) { x.reduce_scatter(data, n, t, on); });
    compare("all_gather", [=](Collectives& x, void* data, Stream on) { x.all_gather(data, n, t, on); });
    compare("reduce_scatter and all_gather", [=](Collectives& x, void* data, Stream on) {
      x.reduce_scatter(data, n, t, on);
      x.all_gather(data, n, t, on);
    });
    for (const int root : {0, c.size() - 1})
      compare("broadcast",
              [=](Collectives& x, void* data, Stream on) { x.broadcast(data, n * std::int64_t(sizeof(T)), root, on); });
  }
}

/// Everything on which `c` and the loopback backend differ, in words; all ranks call it together. Types are given uneven numbers where
/// the backend promises an order for their sums: bf16 among few ranks has it always.
inline std::vector<std::string> differences_from_loopback(Collectives& c, Device device, Stream s,
                                                          std::int64_t longest) {
  std::vector<std::string> wrong;
  for (const bool whole : {true, false}) {
    if (whole || c.deterministic()) {
      compare_type<float>(c, device, s, longest, whole, wrong);
      compare_type<double>(c, device, s, longest, whole, wrong);
    }
    if (whole || c.deterministic() || c.size() <= kMostDealt) compare_type<bf16>(c, device, s, longest, whole, wrong);
  }
  return wrong;
}

}  // namespace eg::test
