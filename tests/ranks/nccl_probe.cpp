// tests/ranks/nccl_probe.cpp - one rank of a check of the NCCL backend. NOT RUN ON A GPU YET: tests/gpu starts it, alone (wiring,
// streams, graph capture) and as two ranks on one GPU (correctness only; never time that).
//
//   RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 nccl_probe [deterministic]
// Every operation is compared bit for bit with the loopback backend, which each rank runs for all of them in host memory: whole
// numbers, whose sums are exact in any order, and with `deterministic`, and for bf16 among few, uneven ones (against_loopback.h).
#include <cstring>
#include <iostream>

#include "cuda/register.h"
#include "engine/collectives/nccl.h"
#include "engine/collectives/session.h"
#include "engine/error.h"
#include "tests/ranks/against_loopback.h"

using namespace eg;

namespace {

int wrong = 0;
void expect(bool ok, const std::string& what) {
  if (ok) return;
  ++wrong;
  std::cerr << "WRONG: " << what << std::endl;
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

/// The same collective from a graph, three times, and between two of them once eagerly, as a step of another shape is between
/// recorded ones: data -> size * data each time, for equal whole numbers.
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
    if (i == 1) c.all_reduce(data.get(), n, DType::f32, s), want *= float(c.size());
  }
  expect(data.equals(std::vector<float>(std::size_t(n), want), s),
         "all_reduce in a replayed graph, and eagerly between two replays");
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
  for (int repeat = 0; repeat < (deterministic ? 3 : 1); ++repeat)
    for (const std::string& what : test::differences_from_loopback(*ranks, device, s, 1 << 20)) expect(false, what);
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
