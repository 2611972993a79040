// tests/emulated/probes.cu - see probes.h.
#include "tests/emulated/probes.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

struct Ring {
  double v[1024];
};
__global__ void __launch_bounds__(1024) keep_device(const KeepProbe p) {
  Ring& s = static_shared<Ring>();
  const unsigned t = threadIdx.x, n = blockDim.x;
  double kept[8];
  EVERGRAD_UNROLL
  for (int i = 0; i < 8; ++i) kept[i] = double(t) + 0.125 * i;
  for (int round = 0; round < p.rounds; ++round) {
    s.v[t] = kept[round % 8];
    __syncthreads();
    const double neighbour = s.v[(t + 1) % n];
    EVERGRAD_UNROLL
    for (int i = 0; i < 8; ++i) kept[i] += neighbour;
    __syncthreads();
  }
  EVERGRAD_UNROLL
  for (int i = 0; i < 8; ++i) p.out[8 * std::size_t(t) + i] = kept[i];
}

__global__ void __launch_bounds__(32) spin_device(const SpinProbe p) {
  volatile std::int64_t count = 0;
  if (threadIdx.x == 0)
    while (count < p.n) count = count + 1;
  __syncthreads();
  p.out[threadIdx.x] = 1;
}

__device__ unsigned dive(int depth) {
  volatile unsigned locals[256];
  for (int i = 0; i < 256; ++i) locals[i] = unsigned(depth + i);
  const unsigned below = depth > 0 ? dive(depth - 1) : 0u;
  return below + locals[unsigned(depth) % 256u];
}
__global__ void __launch_bounds__(32) deep_device(const DeepProbe p) {
  if (threadIdx.x == 3) p.out[0] = dive(p.depth);
}

__global__ void __launch_bounds__(64) add_device(const AddProbe p) {
  const std::int64_t i = std::int64_t(blockIdx.x) * 64 + threadIdx.x;
  p.out[i] = p.in[i] + p.add;
}

// Out of line: a frame of its own.
__attribute__((noinline)) std::uintptr_t frame() {
  return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
}
__global__ void align_device(const AlignProbe p) {
  const std::uintptr_t before = frame();
  __syncthreads();
  p.out[threadIdx.x] = unsigned(before % 16 + 16 * (frame() % 16));
}

}  // namespace

void (*keep_probe())(KeepProbe) { return &keep_device; }
void (*spin_probe())(SpinProbe) { return &spin_device; }
void (*deep_probe())(DeepProbe) { return &deep_device; }
void (*add_probe())(AddProbe) { return &add_device; }
void (*align_probe())(AlignProbe) { return &align_device; }

}  // namespace eg::EVERGRAD_BACKEND
