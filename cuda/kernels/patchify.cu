// cuda/kernels/patchify.cu - images into rows of patches, with crop, flip and normalisation on the way (Dosovitskiy et
// al. 2021, arXiv:2010.11929).
//
// Math     pixel (y, x) of the output = image pixel (top + y, left + (flip ? S-1-x : x)), bytes divided by 255, 0
//          outside the image; value = (pixel - mean[c]) / stddev[c], at place (c, y mod P, x mod P) of the row of its
//          patch
// Shapes   images [B,C,H,W]; out [B, (S/P)^2, C P P]; mean, stddev [C] fp32; crop [B,3] = {top, left, flip}
// Traffic  a byte read and an activation written per value: 3 bytes in bf16. Batch 256 at 224: 116 MB, at best 0.04 ms
// Work     4 FLOP a value: bound by memory, and near it by the loads of single bytes, which a crop at any column asks
//          for
// Mapping  a block does part of one plane (image, channel): crop, mean and stddev are the same for all its threads. A
//          thread does a run of neighbours in x: 8 where the patch side is a multiple of 8, and writes them as one
//          pack. Threads run along the image's rows, so that a warp reads one stretch of memory; it writes whole
//          sectors of several patches
// Limits   any sizes; offsets within a plane are 32 bits
#include "cuda/kernels/patchify.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// Where a thread's run lies: pixel (y, x) of its plane, and its first element in the patch array.
struct Run {
  int y, x;
  std::int64_t at;
};
__device__ __forceinline__ int runs_of_plane(const PatchifyParams& p) { return p.size_y * (p.size_x / p.run); }
__device__ __forceinline__ Run run_of(const PatchifyParams& p, std::int64_t plane, int index) {
  const int per_row = p.size_x / p.run, y = index / per_row, x = index % per_row * p.run;
  const int down = y / p.patch, across = x / p.patch, per_patch = p.patch * p.patch;
  const std::int64_t image = plane / p.channels, channel = plane % p.channels;
  const std::int64_t patches = std::int64_t(p.size_y / p.patch) * (p.size_x / p.patch);
  const std::int64_t patch = image * patches + std::int64_t(down) * (p.size_x / p.patch) + across;
  return {y, x, (patch * p.channels + channel) * per_patch + (y - down * p.patch) * p.patch + (x - across * p.patch)};
}

/// How the values of one plane come about.
struct PlaneView {
  std::int64_t first;  // of the plane in the images
  float mean, stddev;
  int top, left;
  bool flip;
};
__device__ __forceinline__ PlaneView view_of(const PatchifyParams& p, std::int64_t plane) {
  const std::int64_t channel = plane % p.channels;
  PlaneView v = {plane * p.high * p.wide, 0.0f, 1.0f, 0, 0, false};
  if (p.mean.data) v.mean = load_at(p.mean, channel);
  if (p.stddev.data) v.stddev = load_at(p.stddev, channel);
  if (p.crop) {
    const std::int32_t* const crop = p.crop + 3 * (plane / p.channels);
    v.top = crop[0], v.left = crop[1], v.flip = crop[2] != 0;
  }
  return v;
}
__device__ __forceinline__ float value_at(const PatchifyParams& p, const PlaneView& v, int y, int x) {
  const std::int64_t row = std::int64_t(v.top) + y, column = std::int64_t(v.left) + (v.flip ? p.size_x - 1 - x : x);
  float value = 0.0f;
  if (row >= 0 && row < p.high && column >= 0 && column < p.wide) {
    value = load_at(p.images, v.first + row * p.wide + column);
    if (p.images.type == DType::u8) value /= 255.0f;
  }
  return (value - v.mean) / v.stddev;
}

/// Eight neighbours: without questions where they are bytes inside the image, so that all loads go out together.
__device__ __forceinline__ void values_of_run(const PatchifyParams& p, const PlaneView& v, const Run& r,
                                              float (&values)[kPack]) {
  const std::int64_t row = std::int64_t(v.top) + r.y;
  const std::int64_t column = std::int64_t(v.left) + (v.flip ? p.size_x - kPack - r.x : r.x);  // the leftmost
  if (p.images.type == DType::u8 && row >= 0 && row < p.high && column >= 0 && column + kPack <= p.wide) {
    const std::uint8_t* const from = static_cast<const std::uint8_t*>(p.images.data) + v.first + row * p.wide + column;
    std::uint8_t bytes[kPack];
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) bytes[k] = from[v.flip ? kPack - 1 - k : k];
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) values[k] = (float(bytes[k]) / 255.0f - v.mean) / v.stddev;
  } else {
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) values[k] = value_at(p, v, r.y, r.x + k);
  }
}

__global__ void __launch_bounds__(256) patchify_fwd_device(const PatchifyParams p) {
  const int index = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= runs_of_plane(p)) return;
  for (std::int64_t plane = blockIdx.y; plane < p.planes; plane += gridDim.y) {
    const PlaneView v = view_of(p, plane);
    const Run r = run_of(p, plane, index);
    if (p.packs) {
      float values[kPack];
      values_of_run(p, v, r, values);
      store_pack(p.out, r.at, values);
    } else {
      for (int k = 0; k < p.run; ++k) store_at(p.out, r.at + k, value_at(p, v, r.y, r.x + k));
    }
  }
}

__global__ void __launch_bounds__(256) patchify_bwd_device(const PatchifyParams p) {
  const int index = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= runs_of_plane(p)) return;
  for (std::int64_t plane = blockIdx.y; plane < p.planes; plane += gridDim.y) {
    const PlaneView v = view_of(p, plane);
    const Run r = run_of(p, plane, index);
    const std::int64_t to = v.first + std::int64_t(r.y) * p.wide + r.x;
    for (int k = 0; k < p.run; ++k) {
      const float d = load_at(p.out, r.at + k) / v.stddev;
      store_at(p.images, to + k, p.accumulate ? load_at(p.images, to + k) + d : d);
    }
  }
}

}  // namespace

void (*patchify_kernel(bool backward))(PatchifyParams) {
  return backward ? &patchify_bwd_device : &patchify_fwd_device;
}

}  // namespace eg::EVERGRAD_BACKEND
