// cuda/device/launch.cpp - cuda/launch.h on a GPU, and what cuda/scratch.h needs of it.
#include "cuda/launch.h"

#include <map>
#include <mutex>
#include <utility>

#include "cuda/device/runtime.h"
#include "cuda/scratch.h"
#include "engine/error.h"

namespace eg::cuda_backend {
namespace {

constexpr std::size_t kUsualShared = 48 * 1024;

/// Above 48 KiB a kernel must ask for shared memory, once per device.
void allow_shared(const LaunchRequest& r, int device) {
  static std::mutex mutex;
  static std::map<std::pair<void (*)(), int>, std::size_t> allowed;
  const std::lock_guard lock(mutex);
  std::size_t& have = allowed[{r.kernel, device}];
  if (have >= r.shared_bytes) return;
  const cudaError_t status = cudaFuncSetAttribute(reinterpret_cast<const void*>(r.kernel),
                                                  cudaFuncAttributeMaxDynamicSharedMemorySize, int(r.shared_bytes));
  if (status != cudaSuccess) {
    cudaGetLastError();
    fail(Kind::device, cat("kernel ", r.name, " needs ", r.shared_bytes,
                           " bytes of shared memory, more than this GPU gives a block: ", cudaGetErrorString(status)));
  }
  have = r.shared_bytes;
}

}  // namespace

std::size_t most_shared_bytes() {
  int device = 0, bytes = 0;
  check_cuda(cudaGetDevice(&device), "asking for the current device");
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "asking how much shared memory a block may have");
  return std::size_t(bytes);
}

std::int64_t most_resident_blocks(void (*kernel)(), int threads, std::size_t shared_bytes) {
  int device = 0, each = 0, multiprocessors = 0;
  check_cuda(cudaGetDevice(&device), "asking for the current device");
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
             "asking for the number of multiprocessors");
  if (shared_bytes > kUsualShared)
    allow_shared({.name = "of a cooperative launch", .kernel = kernel, .shared_bytes = shared_bytes}, device);
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, reinterpret_cast<const void*>(kernel), threads,
                                                           shared_bytes),
             "asking how many blocks run at once");
  return std::int64_t(each) * multiprocessors;
}

void launch_checked(const LaunchRequest& r, Stream stream) {
  if (r.grid.x == 0 || r.grid.y == 0 || r.grid.z == 0) return;
  check(r.kernel != nullptr, Kind::internal, [&] { return cat("kernel ", r.name, ": no kernel was chosen"); });
  const cudaStream_t s = cuda_stream(stream);
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the current device");
  if (r.shared_bytes > kUsualShared) allow_shared(r, device);
  void* parameters[] = {const_cast<void*>(r.parameters)};
  const void* const kernel = reinterpret_cast<const void*>(r.kernel);
  const cudaError_t status = r.cooperative
                                 ? cudaLaunchCooperativeKernel(kernel, r.grid, r.block, parameters, r.shared_bytes, s)
                                 : cudaLaunchKernel(kernel, r.grid, r.block, parameters, r.shared_bytes, s);
  if (status == cudaSuccess) return;
  cudaGetLastError();
  if (status == cudaErrorCooperativeLaunchTooLarge)
    fail(Kind::usage, cat("kernel ", r.name, ": ", r.grid.x * r.grid.y * r.grid.z,
                          " blocks of a cooperative launch exceed the device's limit of ",
                          most_resident_blocks(r.kernel, int(r.block.x * r.block.y * r.block.z), r.shared_bytes)));
  fail(Kind::device, cat("kernel ", r.name, ", grid (", r.grid.x, ",", r.grid.y, ",", r.grid.z, "), block (", r.block.x,
                         ",", r.block.y, ",", r.block.z, "), ", r.shared_bytes, " bytes of shared memory: ",
                         cudaGetErrorString(status), "; run the same command with --device emulated to look into it"));
}

void* scratch_key(Stream stream) { return cuda_stream(stream); }
DeviceRuntime& scratch_device() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the current device");
  return device_runtime(device);
}
void before_scratch_use(const ScratchBlocks&, std::size_t, Stream) {}

}  // namespace eg::cuda_backend
