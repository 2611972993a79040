// cuda/kernels/arrow_solve.cu - ARROW's W x W system (methods.md A.3.2), on the device so that no step waits for the
// host.
//
// Math     c = (alpha I + (beta/D) K)^-1 e_newest, in double, by the code that the host uses (engine/arrow_solve.h)
// Traffic  the Gram matrices of a group's T tensors once, 8 T (W + 1)^2 bytes, and the state: some KiB
// Work     W^3 / 3 FLOP, beside passes over all parameters
// Mapping  a block of one warp for each group, all groups in one launch: they have nothing in common, and one after the other
//          they would stand between the gradient and the update. The lanes share out the sums of the Gram matrix over the
//          tensors, the columns of the factorisation and K c; the working memory is shared memory where that suffices (window 8: 1.2 KiB, 64: 66)
// Bits     the host's: a checkpoint goes on elsewhere with the same coefficients. The host is compiled without fused
//          multiply-adds (-ffp-contract=off), so nvcc compiles this file with -fmad=false (cuda/device/CMakeLists.txt);
//          its square root and division round as the host's. Only the exponential schedule of alpha calls pow, whose
//          last bit is the library's
// Limits   a window of up to 64 gradients (ArrowState keeps a clip factor of each); any number of tensors in a group. A
//          system that is not positive definite is tried again with alpha x 10, five times at most
#include "cuda/kernels/arrow.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// The lanes of a warp, solving together.
struct SolvingWarp {
  static constexpr int lanes = kWarp;
  int lane;
  __device__ __forceinline__ void sync() const { __syncwarp(); }
};
struct SolveArena {
  double memory[1];  // the length comes with the launch
};

__global__ void __launch_bounds__(kWarp) solve_device(const SolveParams p) {
  const SolveSystem& mine = p.system[blockIdx.x];
  ArrowSolveInput in = p.shared;
  in.grams = mine.grams, in.dots = mine.dots, in.tensors = mine.tensors, in.parameters = mine.parameters;
  in.state = mine.state;
  double* const memory = p.memory ? p.memory + blockIdx.x * p.each : dynamic_shared<SolveArena>().memory;
  arrow_solve_step(SolvingWarp{int(threadIdx.x)}, in, memory);
}

}  // namespace

void (*solve_kernel())(SolveParams) { return &solve_device; }

}  // namespace eg::EVERGRAD_BACKEND
