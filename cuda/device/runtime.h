// cuda/device/runtime.h - the CUDA devices of this machine as the engine sees them.
#pragma once
#include <cuda_runtime.h>

#include <string>

#include "engine/device.h"

namespace eg::cuda_backend {

/// GPUs that this process may use; 0 where there is no driver.
int device_count();
/// Why device_count() is 0, or empty.
std::string why_no_device();
DeviceRuntime& device_runtime(int index);
/// Its PCI address, "0000:3b:00.0": what tells one GPU of a host from another under whatever number.
std::string bus_id(int index);

/// Throws Error{device} (Error{memory} when memory ran out) that names what was tried and CUDA's reason.
void check_cuda(cudaError_t status, const char* what);
/// The stream of a handle; the null handle is a stream of the thread's current device, not CUDA's legacy stream, which
/// could not be captured.
cudaStream_t cuda_stream(Stream s);
/// True while the stream is being captured.
bool capturing(cudaStream_t s);

}  // namespace eg::cuda_backend
