// cuda/kernels/patchify.h - parameters of patchify.cu.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

struct PatchifyParams {
  Operand images, out, mean, stddev;  // backward: images is dimages, out is dout
  const std::int32_t* crop;
  std::int64_t planes;                              // images x channels
  int channels, high, wide, size_y, size_x, patch;  // input sides; output sides; patch side
  int run;                 // neighbours in x that a thread does: they lie in one row of one patch
  bool packs, accumulate;  // packs: run is 8, and `out` can be accessed in packs
};
/// Grid (runs of a plane / block, planes up to kPatchifyPlanes).
inline constexpr unsigned kPatchifyPlanes = 65535;
void (*patchify_kernel(bool backward))(PatchifyParams);

}  // namespace eg::EVERGRAD_BACKEND
