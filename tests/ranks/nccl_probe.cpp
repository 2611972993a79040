// tests/ranks/nccl_probe.cpp - one rank of a check of the NCCL backend. NOT RUN ON A GPU YET: tests/gpu starts it, alone (wiring,
// streams, graph capture) and as two ranks on one GPU (correctness only; never time that).
//
//   RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 nccl_probe [deterministic]
// Sums are compared with those that every rank computes for all ranks on the host: whole numbers, exact in any order, and with
// `deterministic`, and for bf16 always, uneven numbers bit for bit in ascending order.
#include <algorithm>
#include <cstring>
#include <iostream>

#include "cuda/register.h"
#include "engine/collectives/nccl.h"
#include "engine/collectives/session.h"
#include "engine/error.h"

using namespace eg;

namespace {

int wrong = 0;
void expect(bool ok, const std::string& what) {
  if (ok) return;
  ++wrong;
  std::cerr << "WRONG: " << what << std::endl;
}

/// Element i of rank r's data.
double value(int r, std::int64_t i, bool whole) {
  const double v = double((i * 2654435761 + r * 40503) % 1009);
  return whole ? v : (v - 504.0) * (i % 3 == 0 ? 1e-4 : i % 3 == 1 ? 1.0 : 37.7);
}

template <class T>
std::vector<T> data_of(int r, std::int64_t n, bool whole) {
  std::vector<T> v(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) v[std::size_t(i)] = T(float(value(r, i, whole)));
  return v;
}

template <class T, class Sum>
std::vector<T> sum_of(int size, std::int64_t n, bool whole) {
  std::vector<std::vector<T>> all;
  for (int r = 0; r < size; ++r) all.push_back(data_of<T>(r, n, whole));
  std::vector<T> sum(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < sum.size(); ++i) {
    Sum s = Sum(all[0][i]);
    for (int r = 1; r < size; ++r) s += Sum(all[std::size_t(r)][i]);
    sum[i] = T(s);
  }
  return sum;
}

/// Device memory with a copy of a vector.
template <class T>
class OnDevice {
 public:
  OnDevice(DeviceRuntime& r, const std::vector<T>& v, Stream s)
      : r_(r), n_(v.size()), data_(r.allocate(v.size() * sizeof(T))) {
    r_.copy_from_host(data_, v.data(), n_ * sizeof(T), s);
  }
  ~OnDevice() { r_.release(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  T* get() const { return static_cast<T*>(data_); }
  bool equals(const std::vector<T>& want, Stream s) const {
    std::vector<T> have(n_);
    r_.copy_to_host(have.data(), data_, n_ * sizeof(T), s);
    r_.synchronize(s);
    return have.size() == want.size() && std::memcmp(have.data(), want.data(), n_ * sizeof(T)) == 0;
  }

 private:
  DeviceRuntime& r_;
  std::size_t n_;
  void* data_;
};

template <class T, class Sum>
void check_type(Collectives& c, DeviceRuntime& r, Stream s, bool whole) {
  const int size = c.size(), me = c.rank();
  const DType t = dtype_of<T>;
  for (const std::int64_t n : {1, 7, 8, 4099, 1 << 20}) {
    const std::string what = cat(t, " [", n, "], ", whole ? "whole" : "uneven", " numbers");
    OnDevice<T> data(r, data_of<T>(me, n, whole), s);
    c.all_reduce(data.get(), n, t, s);
    expect(data.equals(sum_of<T, Sum>(size, n, whole), s), "all_reduce " + what);

    // The part becomes the sum, and nothing else changes.
    const auto sum = sum_of<T, Sum>(size, n, whole);
    std::vector<T> part = data_of<T>(me, n, whole);
    const RankPart own = RankPart::of(n, me, size);
    std::copy_n(sum.begin() + own.begin, own.size, part.begin() + own.begin);
    OnDevice<T> parts(r, data_of<T>(me, n, whole), s);
    c.reduce_scatter(parts.get(), n, t, s);
    expect(parts.equals(part, s), "reduce_scatter " + what);
    c.all_gather(parts.get(), n, t, s);
    expect(parts.equals(sum, s), "all_gather " + what);

    OnDevice<T> one(r, data_of<T>(me, n, whole), s);
    c.broadcast(one.get(), n * std::int64_t(sizeof(T)), size - 1, s);
    expect(one.equals(data_of<T>(size - 1, n, whole), s), "broadcast " + what);
  }
}

/// The same collective from a graph, three times: data -> size^3 * data for equal whole numbers.
void check_capture(Collectives& c, DeviceRuntime& r, Watchdog& dog, Stream s) {
  const std::int64_t n = 1000;
  OnDevice<float> data(r, std::vector<float>(std::size_t(n), 1.0f), s);
  c.all_reduce(data.get(), n, DType::f32, s);  // warm: connections and scratch are there
  r.synchronize(s);
  Graph graph;
  dog.capture_begins();
  const bool captured = r.capture(
      s, [&] { c.all_reduce(data.get(), n, DType::f32, s); }, &graph);
  const std::uint64_t count = dog.capture_ends();
  expect(captured && count == 1, "a collective can be captured");
  if (!captured) return;
  float want = float(c.size());
  for (int i = 0; i < 3; ++i) {
    r.replay(graph, s);
    dog.replayed(count);
    want *= float(c.size());
  }
  expect(data.equals(std::vector<float>(std::size_t(n), want), s), "all_reduce in a replayed graph");
  r.destroy_graph(graph);
}

int run(bool deterministic) {
  register_cuda_devices();
  const Launch launch = detect_launch();
  const Device device{DeviceType::cuda, 0};
  DeviceRuntime& r = runtime(device);
  RankSession session(launch, {.device = device, .share_gpu = true});
  NcclOptions options;
  options.device = device, options.deterministic = deterministic, options.share_gpu = launch.size > 1;
  auto nccl = nccl_collectives(session.store(), options);
  const auto progress = nccl_progress(*nccl);
  const Stream s = r.create_stream();
  const auto ranks = session.watch(std::move(nccl), "", progress);
  for (int repeat = 0; repeat < (deterministic ? 3 : 1); ++repeat) {
    check_type<float, float>(*ranks, r, s, true);
    check_type<double, double>(*ranks, r, s, true);
    check_type<bf16, float>(*ranks, r, s, false);
    if (deterministic) check_type<float, float>(*ranks, r, s, false);
  }
  check_capture(*ranks, r, *session.watchdog(), s);
  expect(progress() == session.watchdog()->recorder().position().entered, "the device has counted every collective");
  ranks->barrier();
  r.destroy_stream(s);
  std::cout << "rank " << launch.rank << " of " << launch.size << ": " << (wrong ? "WRONG" : "ok") << std::endl;
  return wrong ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 && std::strcmp(argv[1], "deterministic") == 0);
  } catch (const std::exception& e) {
    std::cerr << "nccl_probe: " << e.what() << std::endl;
    return 1;
  }
}
