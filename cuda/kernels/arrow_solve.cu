// cuda/kernels/arrow_solve.cu - ARROW's W x W system (methods.md A.3.2), on the device so that no step waits for the
// host.
//
// Math     c = (alpha I + (beta/D) K)^-1 e_newest, in double, by the code that the host uses (engine/arrow_solve.h)
// Work     W^3 / 3 FLOP of one thread: some microseconds, beside passes over all parameters
// Bits     the host's: a checkpoint goes on elsewhere with the same coefficients. The host is compiled without fused
//          multiply-adds (-ffp-contract=off), so nvcc compiles this file with -fmad=false (cuda/device/CMakeLists.txt);
//          its square root and division round as the host's. Only the exponential schedule of alpha calls pow, whose
//          last bit is the library's
#include "cuda/kernels/arrow.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

__global__ void __launch_bounds__(32) solve_device(const SolveParams p) {
  if (threadIdx.x == 0) arrow_solve_step(p.input, *p.memory);
}

}  // namespace

void (*solve_kernel())(SolveParams) { return &solve_device; }

}  // namespace eg::EVERGRAD_BACKEND
