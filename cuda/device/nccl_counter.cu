// cuda/device/nccl_counter.cu - how far a device is, readable without asking it. NOT RUN ON A GPU YET.
//
// The watchdog may not call CUDA, since a call would hang with the device. So the stream itself counts: behind each collective
// one thread adds 1 to a number in host memory, in a replayed graph too.
#include "cuda/device/nccl_counter.h"

namespace eg::cuda_backend {
namespace {

__global__ void __launch_bounds__(32) count_up_device(const CountUpParams p) {
  // Collectives of several streams may end at the same time. The fence shows the host what came before first.
  __threadfence_system();
  if (threadIdx.x == 0) atomicAdd_system(p.counter, 1ull);
}

}  // namespace

void (*count_up_kernel())(CountUpParams) { return &count_up_device; }

}  // namespace eg::cuda_backend
