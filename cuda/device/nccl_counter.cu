// cuda/device/nccl_counter.cu - how far a device is, readable without asking it. NOT RUN ON A GPU YET.
//
// The watchdog may not call CUDA, since a call would hang with the device. So the stream itself counts: behind each collective
// one thread adds 1 to a number in host memory, in a replayed graph too.
#include "cuda/device/nccl_counter.h"

namespace eg::cuda_backend {
namespace {

__global__ void __launch_bounds__(32) count_up_device(const CountUpParams p) {
  // One writer on one stream: a plain addition is enough. The fence shows the host what came before first.
  __threadfence_system();
  volatile unsigned long long* const counter = p.counter;
  *counter = *counter + 1;
}

}  // namespace

void (*count_up_kernel())(CountUpParams) { return &count_up_device; }

}  // namespace eg::cuda_backend
