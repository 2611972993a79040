// cuda/device/nccl.cpp - collectives by NCCL. NOT RUN ON A GPU YET: compiled and linked only.
//
// One process has one GPU and one communicator: what deadlocks in NCCL needs two of something. Recorded steps and eager
// collectives (a last partial batch, weights that are gathered before a test) take turns on it in the order of the stream, which
// NCCL allows unless NCCL_GRAPH_MIXING_SUPPORT is 0. The communicator is nonblocking, so no call of ours can hang: it is asked whether it
// is ready, up to a deadline, and aborted from a thread of its own, since ncclCommAbort itself may block (nccl issue 1013).
//
// Sums. f32 and f64 are NCCL's all-reduce, whose order of addition is NCCL's affair. bf16 among at most kMostDealt
// ranks, and every type with deterministic(), goes another way: each rank sends part r of its data to rank r, which adds the parts in ascending order in
// fp32 (cuda/kernels/ordered_sum.cu) and sends the sum back. A ring moves as many bytes, but rounds bf16 at every hop.
#include "cuda/device/nccl.h"

#include <nccl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <thread>

#include "cuda/device/nccl_counter.h"
#include "cuda/device/runtime.h"
#include "cuda/kernels/ordered_sum.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"
#include "engine/collectives/meetings.h"
#include "engine/collectives/preflight.h"
#include "engine/collectives/watchdog.h"
#include "engine/error.h"

namespace eg::cuda_backend {
namespace {

ncclDataType_t nccl_type(DType t) {
  switch (t) {
    case DType::f32: return ncclFloat32;
    case DType::f64: return ncclFloat64;
    case DType::bf16: return ncclBfloat16;
    default: fail(Kind::dtype, cat("ranks can sum f32, f64 and bf16, not ", t));
  }
}

char* at(void* base, std::int64_t index, DType t) {
  return static_cast<char*>(base) + index * std::int64_t(size_of(t));
}

/// Says early, with the remedy, what NCCL would say late and darkly.
void check_room_of_this_host(int local_size) {
  struct statvfs shm {};
  if (std::getenv("NCCL_SHM_DISABLE") != nullptr || ::statvfs("/dev/shm", &shm) != 0) return;
  check_shared_memory(host_name(), std::uint64_t(shm.f_bavail) * shm.f_frsize, local_size);
}

/// Settings that NCCL reads once, at its first call. A person's own choice wins.
void set_environment(const NcclOptions& o) {
  const auto prefer = [](const char* name, const char* value) { ::setenv(name, value, 0); };
  prefer("NCCL_GRAPH_MIXING_SUPPORT", "1");
  if (o.deterministic) prefer("NCCL_ALGO", "Ring"), prefer("NCCL_PROTO", "Simple");
  if (!o.share_gpu) return;
  prefer("NCCL_MULTI_RANK_GPU_ENABLE", "1");  // NCCL 2.30 and later
  prefer("NCCL_ALGO", "Ring"), prefer("NCCL_PROTO", "Simple");
  // Older: the check for duplicates compares host hash and bus id, and the hash can be had per process. Ranks then talk over
  // sockets.
  prefer("NCCL_HOSTID", cat("evergrad-", ::getpid()).c_str());
  prefer("NCCL_SOCKET_IFNAME", "lo"), prefer("NCCL_P2P_DISABLE", "1"), prefer("NCCL_SHM_DISABLE", "1");
}

/// A number in host memory that the device may write.
class Counter {
 public:
  Counter() {
    void* host = nullptr;
    check_cuda(cudaHostAlloc(&host, sizeof(unsigned long long), cudaHostAllocMapped),
               "allocating a counter in host memory");
    host_ = static_cast<unsigned long long*>(host), *host_ = 0;
    void* device = nullptr;
    check_cuda(cudaHostGetDevicePointer(&device, host, 0), "mapping a counter into the device");
    device_ = static_cast<unsigned long long*>(device);
  }
  ~Counter() { cudaFreeHost(host_); }
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;
  std::uint64_t value() const { return *static_cast<volatile unsigned long long*>(host_); }
  unsigned long long* on_device() const { return device_; }

 private:
  unsigned long long *host_ = nullptr, *device_ = nullptr;
};

class Nccl final : public Collectives {
 public:
  Nccl(Store& store, const NcclOptions& o) : store_(store), options_(o), meetings_(store, "nccl") {
    check(o.device.type == DeviceType::cuda, Kind::device,
          [&] { return cat("NCCL connects GPUs, and rank ", store.rank(), " is on ", o.device); });
    check_room_of_this_host(o.local_size);
    set_environment(o);
    check_cuda(cudaSetDevice(o.device.index), "selecting the device");
    counter_ = std::make_shared<Counter>();
    const Deadline deadline = within(o.init_seconds);
    ncclUniqueId id{};
    if (rank() == 0) {
      throw_unless(ncclGetUniqueId(&id), "making an id for the communicator");
      store.set("nccl/id", std::string(id.internal, sizeof id.internal));
    } else {
      const std::string text = store.get("nccl/id", deadline);
      check(text.size() == sizeof id.internal, Kind::io, [&] {
        return cat("rank ", rank(), " got an NCCL id of ", text.size(), " bytes and expected ", sizeof id.internal,
                   "; do all ranks have the same NCCL?");
      });
      std::memcpy(id.internal, text.data(), sizeof id.internal);
    }
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm = nullptr;
    const ncclResult_t status = ncclCommInitRankConfig(&comm, size(), id, rank(), &config);
    comm_ = comm;
    settle(status, "making the communicator", deadline);
  }

  /// Finishes, for a bounded time; what hangs is aborted.
  ~Nccl() override {
    if (comm_ == nullptr) return;
    try {
      settle(ncclCommFinalize(comm_), "finishing the communicator", within(10.0));
      ncclCommDestroy(comm_);
    } catch (const std::exception& e) { abort(e.what()); }
  }

  int rank() const override { return store_.rank(); }
  int size() const override { return store_.size(); }
  bool deterministic() const override { return options_.deterministic; }
  std::string name() const override { return "nccl"; }
  std::shared_ptr<const Counter> counter() const { return counter_; }

  void all_reduce(void* data, std::int64_t count, DType t, Stream s) override {
    if (ordered(t)) {
      sum_own_part(data, count, t, s);
      gather_parts(data, count, t, s);
    } else {
      run("all_reduce",
          [&] { return ncclAllReduce(data, data, std::size_t(count), nccl_type(t), ncclSum, comm_, cuda_stream(s)); });
    }
    count_up(s);
  }

  void reduce_scatter(void* data, std::int64_t count, DType t, Stream s) override {
    const RankPart own = part(count, rank());
    if (ordered(t)) {
      sum_own_part(data, count, t, s);
    } else if (own.size * size() == count) {
      run("reduce_scatter", [&] {
        return ncclReduceScatter(data, at(data, own.begin, t), std::size_t(own.size), nccl_type(t), ncclSum, comm_,
                                 cuda_stream(s));
      });
    } else {  // NCCL's own wants equal parts
      run("a sum of each part", [&] {
        return grouped([&](ncclResult_t* status) {
          for (int r = 0; r < size(); ++r)
            if (const RankPart p = part(count, r); p.size > 0)
              keep(status, ncclReduce(at(data, p.begin, t), at(data, p.begin, t), std::size_t(p.size), nccl_type(t),
                                      ncclSum, r, comm_, cuda_stream(s)));
        });
      });
    }
    count_up(s);
  }

  void all_gather(void* data, std::int64_t count, DType t, Stream s) override {
    gather_parts(data, count, t, s);
    count_up(s);
  }

  void broadcast(void* data, std::int64_t bytes, int root, Stream s) override {
    run("broadcast",
        [&] { return ncclBroadcast(data, data, std::size_t(bytes), ncclUint8, root, comm_, cuda_stream(s)); });
    count_up(s);
  }

  // Between hosts, over the store: rare, small, and never mixed with what is on a stream. The watchdog has the deadline.
  void barrier() override { all_gather_bytes(""); }
  std::vector<std::string> all_gather_bytes(const std::string& mine) override {
    return meetings_.gather(mine, within(1e7));
  }

  void abort(const std::string& why) noexcept override {
    const ncclComm_t comm = comm_.exchange(nullptr);
    if (comm == nullptr) return;
    std::atomic<bool> done{false};
    std::thread aborting([comm, &done] {
      ncclCommAbort(comm);
      done = true;
    });
    for (const Deadline limit = within(options_.abort_seconds); !done; ::usleep(10'000)) {
      if (!limit.over()) continue;
      std::cerr << "evergrad: rank " << rank() << ": ncclCommAbort has not returned for " << options_.abort_seconds
                << " s, so the process ends; it was aborting because " << why << std::endl;
      ::_exit(kLostRankExitCode);
    }
    aborting.join();
  }

 private:
  bool ordered(DType t) const { return options_.deterministic || (t == DType::bf16 && size() <= kMostDealt); }
  RankPart part(std::int64_t count, int r) const { return RankPart::of(count, r, size()); }

  /// This rank's part of `data` [count] becomes everybody's, summed in ascending order of ranks.
  void sum_own_part(void* data, std::int64_t count, DType t, Stream s) {
    const RankPart own = part(count, rank());
    // As wide as the longest part, so that every rank's scratch is the same.
    const std::int64_t stride = part(count, 0).size;
    void* const space = scratch(s, std::size_t(stride) * std::size_t(size()) * size_of(t)).data;
    run("an exchange of parts", [&] {
      return grouped([&](ncclResult_t* status) {
        for (int r = 0; r < size(); ++r) {
          const RankPart theirs = part(count, r);
          if (theirs.size > 0)
            keep(status,
                 ncclSend(at(data, theirs.begin, t), std::size_t(theirs.size), nccl_type(t), r, comm_, cuda_stream(s)));
          if (own.size > 0)
            keep(status,
                 ncclRecv(at(space, r * stride, t), std::size_t(own.size), nccl_type(t), r, comm_, cuda_stream(s)));
        }
      });
    });
    ordered_sum(space, at(data, own.begin, t), own.size, stride, size(), t, s);
  }

  /// Every rank's own part of `data` [count] reaches all others.
  void gather_parts(void* data, std::int64_t count, DType t, Stream s) {
    const RankPart own = part(count, rank());
    if (own.size * size() == count) {
      run("all_gather", [&] {
        return ncclAllGather(at(data, own.begin, t), data, std::size_t(own.size) * size_of(t), ncclUint8, comm_,
                             cuda_stream(s));
      });
      return;
    }
    run("an exchange of unequal parts", [&] {
      return grouped([&](ncclResult_t* status) {
        for (int r = 0; r < size(); ++r) {
          if (r == rank()) continue;
          const RankPart theirs = part(count, r);
          if (own.size > 0)
            keep(status, ncclSend(at(data, own.begin, t), std::size_t(own.size) * size_of(t), ncclUint8, r, comm_,
                                  cuda_stream(s)));
          if (theirs.size > 0)
            keep(status, ncclRecv(at(data, theirs.begin, t), std::size_t(theirs.size) * size_of(t), ncclUint8, r, comm_,
                                  cuda_stream(s)));
        }
      });
    });
  }

  void count_up(Stream s) {
    launch("count_up", count_up_kernel(), dim3(1), dim3(1), 0, s, CountUpParams{counter_->on_device()});
  }

  static void keep(ncclResult_t* first, ncclResult_t status) {
    if (*first == ncclSuccess && status != ncclInProgress) *first = status;
  }
  template <class Body>
  static ncclResult_t grouped(Body&& body) {
    ncclResult_t status = ncclSuccess;
    keep(&status, ncclGroupStart());
    body(&status);
    const ncclResult_t end = ncclGroupEnd();
    return status == ncclSuccess ? end : status;
  }

  template <class Call>
  void run(const char* what, Call&& call) {
    check(comm_ != nullptr, Kind::device,
          [&] { return cat("rank ", rank(), ": ", what, " after the communicator was aborted"); });
    settle(call(), what, within(options_.init_seconds));  // the first collective between two ranks connects them
  }

  /// Waits until a nonblocking call is accepted (not until the device has done it). Throws Error{device}.
  void settle(ncclResult_t status, const char* what, const Deadline& deadline) {
    while (status == ncclInProgress || status == ncclSuccess) {
      const bool accepted = status == ncclSuccess;
      const ncclComm_t comm = comm_;
      check(comm != nullptr, Kind::device, [&] { return cat("rank ", rank(), ": ", what, " was aborted"); });
      throw_unless(ncclCommGetAsyncError(comm, &status), what);
      if (accepted && status == ncclSuccess) return;
      if (status != ncclInProgress) continue;
      if (!deadline.over()) {
        ::usleep(50);
        continue;
      }
      const std::string why =
          cat("rank ", rank(), ": ", what, " by NCCL has not come about within ", deadline.seconds,
              " s; NCCL_DEBUG=INFO shows what it waits for (a wrong network interface? NCCL_SOCKET_IFNAME)");
      abort(why);
      fail(Kind::device, why);
    }
    throw_unless(status, what);
  }

  void throw_unless(ncclResult_t status, const char* what) {
    if (status == ncclSuccess || status == ncclInProgress) return;
    const char* last = ncclGetLastError(comm_);
    const std::string why = cat("rank ", rank(), ": ", what, " failed: ", ncclGetErrorString(status),
                                last && *last ? ": " : "", last ? last : "", " (NCCL_DEBUG=WARN says more)");
    abort(why);
    fail(Kind::device, why);
  }

  Store& store_;
  const NcclOptions options_;
  std::atomic<ncclComm_t> comm_{nullptr};  // null: not there yet, or aborted (by this thread or the watchdog's)
  std::shared_ptr<Counter> counter_;
  Meetings meetings_;
};

}  // namespace

NcclBackend nccl_backend() {
  NcclBackend b;
  b.make = [](Store& store, const NcclOptions& o) -> std::unique_ptr<Collectives> {
    return std::make_unique<Nccl>(store, o);
  };
  b.progress = [](const Collectives& c) -> std::function<std::uint64_t()> {
    return [counter = dynamic_cast<const Nccl&>(c).counter()] { return counter->value(); };
  };
  return b;
}

}  // namespace eg::cuda_backend
