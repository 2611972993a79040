// engine/reference/patchify.cpp - images cut into patches (Dosovitskiy et al. 2021, arXiv:2010.11929), with crop, flip
// and normalisation on the way.
//
// Shapes: images [B,C,H,W], bytes (divided by 255) or floats; out [B, (S/P)^2, C P P] for output side S and patch side
// P. The patch vector runs over channel, row, column, as a convolution's weight [D,C,P,P] does, so that patch embedding
// is one matrix product. mean, stddev [C]; crop [B,3] = {top, left, flip}.
//
//   pixel (y, x) of the output = image pixel (top + y, left + (flip ? S-1-x : x)), or 0 outside the image
//   value = (pixel - mean) / stddev
#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {
namespace {

struct Pixel {
  std::int64_t image, channel, y, x;
};

/// Which output pixel element i of out[B, n, C P P] holds.
Pixel pixel_of(std::int64_t i, std::int64_t channels, std::int64_t patches_high, std::int64_t patches_wide,
               std::int64_t P) {
  const std::int64_t column = i % P, row = i / P % P, channel = i / (P * P) % channels;
  const std::int64_t patch = i / (P * P * channels), across = patch % patches_wide;
  const std::int64_t down = patch / patches_wide % patches_high, image = patch / (patches_wide * patches_high);
  return {image, channel, down * P + row, across * P + column};
}

}  // namespace

void patchify_fwd(const PatchifyFwd& a, Stream) {
  const std::int64_t channels = a.images.dim(1), high = a.images.dim(2), wide = a.images.dim(3);
  const double unit = a.images.dtype == DType::u8 ? 255.0 : 1.0;
  for (std::int64_t i = 0; i < a.out.size(); ++i) {
    const Pixel p = pixel_of(i, channels, a.size / a.patch, a.size / a.patch, a.patch);
    std::int64_t y = p.y, x = p.x;
    if (a.crop) {
      const bool flip = get(a.crop, 3 * p.image + 2) != 0.0;
      y = std::int64_t(get(a.crop, 3 * p.image)) + p.y;
      x = std::int64_t(get(a.crop, 3 * p.image + 1)) + (flip ? a.size - 1 - p.x : p.x);
    }
    double value = 0.0;
    if (y >= 0 && y < high && x >= 0 && x < wide)
      value = get(a.images, ((p.image * channels + p.channel) * high + y) * wide + x) / unit;
    if (a.mean) value -= get(a.mean, p.channel);
    if (a.stddev) value /= get(a.stddev, p.channel);
    put(a.out, i, value);
  }
}

void patchify_bwd(const PatchifyBwd& a, Stream) {
  const std::int64_t channels = a.dimages.dim(1), high = a.dimages.dim(2), wide = a.dimages.dim(3);
  for (std::int64_t i = 0; i < a.dout.size(); ++i) {
    const Pixel p = pixel_of(i, channels, high / a.patch, wide / a.patch, a.patch);
    const double stddev = a.stddev ? get(a.stddev, p.channel) : 1.0;
    put(a.dimages, ((p.image * channels + p.channel) * high + p.y) * wide + p.x, get(a.dout, i) / stddev, a.accumulate);
  }
}

}  // namespace eg::reference
