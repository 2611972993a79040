// cuda/device/runtime.cpp - see runtime.h. Every handle has an owner; every call's status is looked at.
#include "cuda/device/runtime.h"

#include <array>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>

#include "cuda/recording.h"
#include "engine/allocations.h"
#include "engine/error.h"

namespace eg::cuda_backend {
namespace {

/// Memory that the driver can read without a copy of its own.
class Pinned {
 public:
  Pinned() = default;
  ~Pinned() {
    if (memory_) cudaFreeHost(memory_);
    if (event_) cudaEventDestroy(event_);
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  /// Copies through this buffer; returns as soon as `host` may be changed.
  void send(void* device, const void* host, std::size_t bytes, cudaStream_t s) {
    if (!event_) check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "creating an event");
    check_cuda(cudaEventSynchronize(event_), "waiting for an earlier copy");
    if (bytes_ < bytes) {
      if (memory_) check_cuda(cudaFreeHost(memory_), "freeing pinned memory");
      memory_ = nullptr, bytes_ = 0;
      check_cuda(cudaMallocHost(&memory_, bytes), "allocating pinned memory");
      bytes_ = bytes;
    }
    std::memcpy(memory_, host, bytes);
    check_cuda(cudaMemcpyAsync(device, memory_, bytes, cudaMemcpyHostToDevice, s), "a copy to the device");
    check_cuda(cudaEventRecord(event_, s), "recording an event");
  }

 private:
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
  cudaEvent_t event_ = nullptr;
};

class Runtime final : public DeviceRuntime {
 public:
  /// Asks nothing of the device: a context takes hundreds of megabytes of it, and every process registers every GPU.
  explicit Runtime(int index) : index_(index) {}
  /// The stream that a null handle stands for.
  cudaStream_t main() const {
    std::call_once(made_, [this] {
      use();
      check_cuda(cudaStreamCreateWithFlags(&main_, cudaStreamNonBlocking), "creating a stream");
    });
    return main_;
  }

  void* allocate(std::size_t bytes) override {
    if (bytes == 0) return nullptr;
    refuse_in_recording(kAllocation, bytes);
    use();
    count_device_allocation();
    void* block = nullptr;
    const cudaError_t status = cudaMalloc(&block, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      std::size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      fail(Kind::memory, cat("cuda:", index_, " has no room for ", bytes >> 20, " MiB more: ", free >> 20, " of ",
                             total >> 20, " MiB are free; use a smaller --batch, --accumulate or --recompute"));
    }
    check_cuda(status, "allocating device memory");
    return block;
  }
  void release(void* block) noexcept override {
    if (!block || keep_in_recording(*this, block)) return;
    cudaSetDevice(index_);
    cudaFree(block);  // waits for the device; at the end of the process the driver may be gone, which harms nothing
    cudaGetLastError();
  }
  void copy_from_host(void* device, const void* host, std::size_t bytes, Stream s) override {
    if (bytes == 0) return;
    refuse_in_recording(kCopyFromHost, bytes);
    use();
    const std::lock_guard lock(mutex_);
    pinned_[next_++ % pinned_.size()].send(device, host, bytes, stream(s));
  }
  void copy_to_host(void* host, const void* device, std::size_t bytes, Stream s) override {
    if (bytes == 0) return;
    refuse_in_recording(kCopyToHost, bytes);
    use();
    check_cuda(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream(s)), "a copy to the host");
  }
  void copy_within(void* to, const void* from, std::size_t bytes, Stream s) override {
    if (bytes == 0) return;
    use();
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream(s)), "a copy on the device");
  }
  void set_zero(void* block, std::size_t bytes, Stream s) override {
    if (bytes == 0) return;
    use();
    check_cuda(cudaMemsetAsync(block, 0, bytes, stream(s)), "setting device memory to zero");
  }
  void synchronize(Stream s) override {
    refuse_in_recording(kWaiting);
    use();
    check_cuda(cudaStreamSynchronize(stream(s)), "waiting for the device (a kernel before may have failed)");
  }

  Stream create_stream() override {
    use();
    cudaStream_t s = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "creating a stream");
    return {s};
  }
  void destroy_stream(Stream s) noexcept override {
    if (!s.handle) return;
    // A later stream may get this handle, and with it the scratch memory that kernels on this one still use.
    cudaStreamSynchronize(static_cast<cudaStream_t>(s.handle));
    cudaStreamDestroy(static_cast<cudaStream_t>(s.handle));
    cudaGetLastError();
  }
  Event create_event() override {
    use();
    cudaEvent_t e = nullptr;
    check_cuda(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "creating an event");
    return {e};
  }
  Event create_timed_event() override {
    use();
    cudaEvent_t e = nullptr;
    check_cuda(cudaEventCreateWithFlags(&e, cudaEventDefault), "creating a timed event");
    const std::lock_guard lock(mutex_);
    timed_.insert(e);
    return {e};
  }
  void destroy_event(Event e) noexcept override {
    if (!e.handle) return;
    cudaEventDestroy(static_cast<cudaEvent_t>(e.handle));
    const std::lock_guard lock(mutex_);
    timed_.erase(static_cast<cudaEvent_t>(e.handle));
  }
  void record(Event e, Stream s) override {
    use();
    // CUDA would take it for one that only orders the recorded work, and its time would be that of an earlier record.
    if (recording_here()) {
      const std::lock_guard lock(mutex_);
      if (timed_.contains(static_cast<cudaEvent_t>(e.handle))) refuse_in_recording(kTimedEvent);
    }
    check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(e.handle), stream(s)), "recording an event");
  }
  void wait(Stream s, Event e) override {
    use();
    check_cuda(cudaStreamWaitEvent(stream(s), static_cast<cudaEvent_t>(e.handle), 0), "waiting for an event");
  }

  double seconds_between(Event from, Event to) override {
    use();
    float milliseconds = 0.0f;
    check_cuda(
        cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(from.handle), static_cast<cudaEvent_t>(to.handle)),
        "reading the time between two events");
    return 1e-3 * double(milliseconds);
  }

  bool capture(Stream s, const std::function<void()>& body, Graph* graph) override {
    use();
    check_cuda(cudaStreamSynchronize(stream(s)), "waiting for the device before recording");
    cudaGraph_t recorded = nullptr;
    try {
      record_under_rules([&] {
        check_cuda(cudaStreamBeginCapture(stream(s), cudaStreamCaptureModeThreadLocal), "beginning to record a step");
        try {
          body();
        } catch (...) {
          cudaStreamEndCapture(stream(s), &recorded);
          throw;
        }
        check_cuda(cudaStreamEndCapture(stream(s), &recorded), "recording a step");
      });
    } catch (...) {
      if (recorded) cudaGraphDestroy(recorded);
      cudaGetLastError();
      throw;
    }
    cudaGraphExec_t ready = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&ready, recorded, 0);
    cudaGraphDestroy(recorded);
    check_cuda(status, "making a graph of a recorded step");
    graph->handle = ready;
    return true;
  }
  void replay(Graph g, Stream s) override {
    use();
    check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(g.handle), stream(s)), "replaying a recorded step");
  }
  void destroy_graph(Graph g) noexcept override {
    if (g.handle) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(g.handle));
  }

  std::string describe() const override {
    int driver = 0, toolkit = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&toolkit);
    cudaDeviceProp p{};
    check_cuda(cudaGetDeviceProperties(&p, index_), "asking for the device's properties");
    return cat(p.name, ", ", p.multiProcessorCount, " multiprocessors, ", p.totalGlobalMem >> 30,
               " GiB, compute capability ", p.major, ".", p.minor, ", driver ", driver / 1000, ".", driver % 1000 / 10,
               ", toolkit ", toolkit / 1000, ".", toolkit % 1000 / 10);
  }

 private:
  void use() const { check_cuda(cudaSetDevice(index_), "selecting the device"); }
  cudaStream_t stream(Stream s) const { return s.handle ? static_cast<cudaStream_t>(s.handle) : main(); }

  int index_;
  mutable std::once_flag made_;
  mutable cudaStream_t main_ = nullptr;  // lives as long as the process
  std::array<Pinned, 3> pinned_;
  std::size_t next_ = 0;
  std::set<cudaEvent_t> timed_;
  std::mutex mutex_;
};

Runtime& runtime_of(int index) {
  static std::mutex mutex;
  static std::array<Runtime*, 64> all{};  // never destroyed: tensors of other statics may be released after us
  check(index >= 0 && index < int(all.size()), Kind::device, [&] { return cat("there is no device cuda:", index); });
  const std::lock_guard lock(mutex);
  if (!all[std::size_t(index)]) all[std::size_t(index)] = new Runtime(index);
  return *all[std::size_t(index)];
}

cudaError_t count_devices(int* count) {
  const cudaError_t status = cudaGetDeviceCount(count);
  if (status != cudaSuccess) *count = 0, cudaGetLastError();
  return status;
}

}  // namespace

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // a later call must not report this one
  const bool memory = status == cudaErrorMemoryAllocation;
  fail(memory ? Kind::memory : Kind::device,
       cat("CUDA: ", what, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")",
           status == cudaErrorIllegalAddress || status == cudaErrorLaunchFailure
               ? "; run the same command with --device emulated, which names kernel, thread and place"
               : ""));
}

int device_count() {
  int count = 0;
  count_devices(&count);
  return count;
}

std::string bus_id(int index) {
  char text[32] = {};
  check_cuda(cudaDeviceGetPCIBusId(text, sizeof text, index), "asking for the device's PCI address");
  return text;
}

std::string why_no_device() {
  int count = 0;
  const cudaError_t status = count_devices(&count);
  return count > 0 ? "" : status == cudaSuccess ? "the driver sees no GPU" : cudaGetErrorString(status);
}
DeviceRuntime& device_runtime(int index) { return runtime_of(index); }

cudaStream_t cuda_stream(Stream s) {
  if (s.handle) return static_cast<cudaStream_t>(s.handle);
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the current device");
  return runtime_of(device).main();
}

bool capturing(cudaStream_t s) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(s, &status), "asking whether a stream is recorded");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace eg::cuda_backend
