// cuda/device/choices.cpp - choices between kernels on a GPU: what identifies it, and its clock. NOT RUN ON A GPU YET.
#include "cuda/choose.h"
#include "cuda/device/runtime.h"
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/library.h"
#include "cuda/table.h"
#include "engine/build_info.h"
#include "engine/error.h"
#if defined(EVERGRAD_HAVE_CUBLASLT)
#include "cuda/device/cublaslt.h"
#endif
#if defined(EVERGRAD_HAVE_CUDNN)
#include "cuda/device/cudnn_attention.h"
#endif

namespace eg::cuda_backend {
namespace {

/// Of one measurement. Recorded and played at once, as in a step: launched one by one, short kernels wait for the host, and it is
/// the host that would be timed.
constexpr int kLaunches = 8;

class TimedEvent {
 public:
  TimedEvent() { check_cuda(cudaEventCreate(&event_), "creating an event with a time"); }
  ~TimedEvent() { cudaEventDestroy(event_); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

double milliseconds(const std::string&, const std::string&, Stream stream, const std::function<void()>& work) {
  DeviceRuntime& r = runtime(current_device());
  const TimedEvent begin, end;
  work();  // whatever the one before left in the caches; and memory that it asks for, which a recording may not
  const auto launches = [&] {
    for (int i = 0; i < kLaunches; ++i) work();
  };
  Graph graph;
  try {
    r.capture(stream, launches, &graph);
  } catch (const Error&) {  // it cannot be recorded, so a step that takes it is not recorded either
    r.synchronize(stream);
  }
  if (graph.handle) r.replay(graph, stream);  // the first time it is also brought to the device
  check_cuda(cudaEventRecord(begin.get(), cuda_stream(stream)), "recording the begin of a measurement");
  graph.handle ? r.replay(graph, stream) : launches();
  check_cuda(cudaEventRecord(end.get(), cuda_stream(stream)), "recording the end of a measurement");
  check_cuda(cudaEventSynchronize(end.get()), "waiting for a measurement");
  r.destroy_graph(graph);
  float total = 0.0f;
  check_cuda(cudaEventElapsedTime(&total, begin.get(), end.get()), "reading the time of a measurement");
  return double(total) / kLaunches;
}

}  // namespace

Device current_device() {
  int index = 0;
  check_cuda(cudaGetDevice(&index), "asking for the current device");
  return {DeviceType::cuda, index};
}
bool is_recording(Stream stream) { return capturing(cuda_stream(stream)); }
bool warpgroup_products() {
#if defined(EVERGRAD_SM_90A)  // nvcc.cmake: among the architectures that the kernels are compiled for
  int major = 0, minor = 0;
  const int device = current_device().index;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "asking for the compute capability");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "asking for the compute capability");
  return major == 9 && minor == 0;
#else
  return false;
#endif
}

std::vector<std::string> implementation_names() {
  std::vector<std::string> names{"tile-128",     "tile-64", "warpgroup-256", "warpgroup-128",
                                 "tensor-cores", "plain",   "one-kernel",    "two-kernels"};
#if defined(EVERGRAD_HAVE_CUBLASLT)
  for (std::string& name : cublaslt_names()) names.push_back(std::move(name));
#endif
#if defined(EVERGRAD_HAVE_CUDNN)
  for (std::string& name : cudnn_names()) names.push_back(std::move(name));
#endif
  return names;
}

#if !defined(EVERGRAD_HAVE_CUBLASLT)
void add_library_ways(const std::string&, const Matmul&, std::vector<Way<Matmul>>*) {}
#endif
#if !defined(EVERGRAD_HAVE_CUDNN)
void add_library_ways(const std::string&, const AttentionFwd&, std::vector<Way<AttentionFwd>>*) {}
void add_library_ways(const std::string&, const AttentionBwd&, std::vector<Way<AttentionBwd>>*) {}
#endif

void describe_kernel_choices(int device) {
  cudaDeviceProp properties{};
  int driver = 0;
  check_cuda(cudaGetDeviceProperties(&properties, device), "asking for the device's properties");
  check_cuda(cudaDriverGetVersion(&driver), "asking for the driver's version");
  std::string identity = cat(properties.name, ", ", properties.multiProcessorCount, " multiprocessors, driver ", driver,
                             ", runtime ", CUDART_VERSION);
#if defined(EVERGRAD_HAVE_CUBLASLT)
  identity += cat(", cuBLASLt ", cublaslt_version());
#endif
#if defined(EVERGRAD_HAVE_CUDNN)
  identity += cat(", cuDNN ", cudnn_version());
#endif
  // What was measured holds for these candidates; other ones, or another generation of them, are measured anew.
  constexpr int kGeneration = 2;
  for (const std::string& name : implementation_names()) identity += cat(", ", name);
  identity += cat(", generation ", kGeneration);
  kernel_choices({DeviceType::cuda, device})
      .describe(implementation_names(), cat(identity, ", evergrad ", build_info().version), &milliseconds);
}

}  // namespace eg::cuda_backend
