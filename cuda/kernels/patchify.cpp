// cuda/kernels/patchify.cpp - host entries of patchify.cu.
#include "cuda/kernels/patchify.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

PatchifyParams params_of(const TensorView& images, const TensorView& patches, int size_y, int size_x, int patch) {
  PatchifyParams p;
  p.images = operand(images), p.out = operand(patches), p.mean = p.stddev = operand({});
  p.crop = nullptr, p.planes = images.dim(0) * images.dim(1), p.channels = int(images.dim(1));
  p.high = int(images.dim(2)), p.wide = int(images.dim(3)), p.size_y = size_y, p.size_x = size_x, p.patch = patch;
  p.run = patch % 8 == 0 ? 8 : patch % 4 == 0 ? 4 : patch % 2 == 0 ? 2 : 1;
  p.packs = p.run == kPack && wide_access({&patches}), p.accumulate = false;
  return p;
}

void launch_planes(const char* name, bool backward, const PatchifyParams& p, Stream s) {
  const std::int64_t runs = p.planes > 0 ? std::int64_t(p.size_y) * (p.size_x / p.run) : 0;
  const std::int64_t threads = min_of<std::int64_t>(ceil_div<std::int64_t>(runs, kWarp) * kWarp, 256);
  const dim3 grid(unsigned(runs ? ceil_div(runs, threads) : 0),
                  unsigned(min_of<std::int64_t>(p.planes, kPatchifyPlanes)));
  launch(name, patchify_kernel(backward), grid, dim3(unsigned(threads)), 0, s, p);
}

}  // namespace

void patchify_fwd(const PatchifyFwd& a, Stream s) {
  PatchifyParams p = params_of(a.images, a.out, a.size, a.size, a.patch);
  p.mean = operand(a.mean), p.stddev = operand(a.stddev), p.crop = a.crop.as<std::int32_t>();
  launch_planes("patchify_fwd", false, p, s);
}

void patchify_bwd(const PatchifyBwd& a, Stream s) {
  PatchifyParams p = params_of(a.dimages, a.dout, int(a.dimages.dim(2)), int(a.dimages.dim(3)), a.patch);
  p.stddev = operand(a.stddev), p.accumulate = a.accumulate;
  launch_planes("patchify_bwd", true, p, s);
}

}  // namespace eg::EVERGRAD_BACKEND
