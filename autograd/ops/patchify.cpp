// autograd/ops/patchify.cpp - images to rows of patches.
#include "autograd/ops/patchify.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void Patchify::check(const In& in, const Attrs& attrs) {
  const auto& [images, mean, stddev, crop] = in;
  require(name, "images", images);
  require_rank(name, "images", images, 4, 4);
  const bool exact = images.device().type == DeviceType::reference;
  const bool input_fits =
      images.dtype() == DType::u8 ||
      (exact ? images.dtype() == DType::f64 : images.dtype() == DType::f32 || images.dtype() == DType::bf16);
  eg::check(input_fits, Kind::dtype, [&, &i = images] {
    return cat(name, ": images must be u8 or ", exact ? "f64" : "f32 or bf16", ", got ", i);
  });
  eg::check(exact ? attrs.out == DType::f64 : attrs.out == DType::f32 || attrs.out == DType::bf16, Kind::dtype,
            [&] { return cat(name, ": out must be ", exact ? "f64" : "f32 or bf16", ", got ", attrs.out); });
  eg::check(attrs.patch > 0 && attrs.size > 0 && attrs.size % attrs.patch == 0, Kind::shape,
            [&] { return cat(name, ": size ", attrs.size, " must be a positive multiple of patch ", attrs.patch); });
  if (!crop)
    eg::check(images.dim(2) == attrs.size && images.dim(3) == attrs.size, Kind::shape, [&, &i = images] {
      return cat(name, ": images are ", i.dim(2), " x ", i.dim(3), " but size is ", attrs.size,
                 "; give crop, or resize first; images is ", i);
    });
  const DType stat = images.device().statistic();
  eg::check(bool(mean) == bool(stddev), Kind::usage,
            [&] { return cat(name, ": mean and stddev must be given together, or neither"); });
  if (mean) {
    require_type(name, "mean", mean, stat, images);
    require_shape(name, "mean", mean, {images.dim(1)}, "one entry per image channel");
    require_type(name, "stddev", stddev, stat, images);
    require_shape(name, "stddev", stddev, {images.dim(1)}, "one entry per image channel");
  }
  if (crop) {
    require_type(name, "crop", crop, DType::i32, images);
    require_shape(name, "crop", crop, {images.dim(0), 3}, "top, left, flip for every image");
  }
}

Patchify::Out Patchify::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const auto& [images, mean, stddev, crop] = in;
  const std::int64_t side = attrs.size / attrs.patch, values = images.dim(1) * attrs.patch * attrs.patch;
  const Tensor out = result(images, {images.dim(0), side * side, values}, attrs.out);
  if (out.size() != 0) {
    PatchifyFwd a{.images = images.view(), .out = out.view(), .patch = attrs.patch, .size = attrs.size};
    if (mean) a.mean = mean.view(), a.stddev = stddev.view();
    if (crop) a.crop = crop.view();
    EVERGRAD_CALL(images.device(), patchify_fwd, a);
  }
  if (saved) *saved = {stddev, bool(crop)};
  return {out};
}

void Patchify::backward(const Out& dy, const Saved& saved, const Attrs& attrs,
                        const std::array<Destination, arity>& to) {
  if (!to[0].wanted) return;
  eg::check(!saved.cropped, Kind::usage,
            [&] { return cat(name, ": images have no gradient through crop; watch images only without crop"); });
  PatchifyBwd a{.dout = dy[0].view(), .dimages = to[0].view, .patch = attrs.patch, .accumulate = to[0].accumulate};
  if (saved.stddev) a.stddev = saved.stddev.view();
  EVERGRAD_CALL(dy[0].device(), patchify_bwd, a);
}

}  // namespace eg::ops
