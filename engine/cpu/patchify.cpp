// engine/cpu/patchify.cpp - decode, crop, flip, normalise and cut images into patch vectors in one pass, one image per
// work item. Bound by memory: reads each byte of the crop once, writes each patch element once.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"

namespace eg::cpu {
namespace {
// Floats of scratch for one row of either kind, with room for one whole vector.
std::int64_t padded_row(std::int64_t size) { return (size + 31) / 16 * 16; }
}  // namespace
}  // namespace eg::cpu

#define EVERGRAD_KERNEL_BODY "engine/cpu/patchify.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {

void patchify_fwd(const PatchifyFwd& a, Stream) {
  const std::size_t channels = std::size_t(a.images.dim(1));
  const std::vector<float> mean = as_floats(a.mean), stddev = as_floats(a.stddev);
  const double unit = a.images.dtype == DType::u8 ? 255.0 : 1.0;
  std::vector<float> factor(channels), offset(channels);  // (value / unit - mean) / stddev = value factor + offset
  for (std::size_t c = 0; c < channels; ++c) {
    const double sigma = stddev.empty() ? 1.0 : double(stddev[c]);
    factor[c] = float(1.0 / (unit * sigma));
    offset[c] = mean.empty() ? 0.0f : float(-double(mean[c]) / sigma);
  }
  EVERGRAD_DISPATCH(patchify_fwd, a, factor.data(), offset.data());
}

void patchify_bwd(const PatchifyBwd& a, Stream) {
  const std::vector<float> stddev = as_floats(a.stddev);
  std::vector<float> factor(std::size_t(a.dimages.dim(1)), 1.0f);
  for (std::size_t c = 0; c < stddev.size(); ++c) factor[c] = 1.0f / stddev[c];
  EVERGRAD_DISPATCH(patchify_bwd, a, factor.data());
}

}  // namespace eg::cpu
