// data/transform.h - the fixed map that a task applies to every image of its stream: permuted pixels or a shifted
// domain.
//
// Definitions: methods.md C.2. A transform is decided per task. An abrupt one is the same for training and test images;
// a gradual one moves from `start` to `amount` while the task is learned and is tested at its end. Additive noise draws
// per image, keyed by the image's index, so a given image always meets the same noise.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace eg {

enum class TransformKind : std::uint8_t {
  none,
  permute_pixels,    // one permutation of all pixel positions
  permute_in_patch,  // one permutation of positions, repeated inside every patch
  permute_patches,   // patches change places, their content stays whole
  rotate,            // clockwise by `amount` degrees about the centre, bilinear, zero outside
  hue,               // rotation of the colour plane by `amount` degrees
  contrast,          // amount (x - mean) + mean, the mean per image and channel
  blur,              // Gaussian of standard deviation `amount` pixels
  noise,             // additive Gaussian of standard deviation `amount` (of the range 0..1)
  invert             // 255 - x
};
const char* to_string(TransformKind kind);

/// What a task does to every image, as plain numbers; PreparedTransform carries it out.
struct Transform {
  TransformKind kind = TransformKind::none;
  double amount = 0.0;
  bool gradual = false;
  double start = 0.0;        // gradual: the amount at the task's first training image
  int patch = 0;             // permute_in_patch and permute_patches
  std::uint64_t seed = 0;    // of the permutation or the noise
  std::uint32_t stream = 0;  // task number, folded into the key
  std::string describe() const;
};

/// A transform made ready for one image format: permutations are tables here. Const members are thread-safe.
class PreparedTransform {
 public:
  PreparedTransform() = default;
  /// Throws Error{usage} when a patch does not divide the image size.
  PreparedTransform(const Transform& transform, ImageFormat format);
  bool identity() const { return transform_.kind == TransformKind::none; }
  /// In place; scratch is resized as needed. image_key identifies the image for additive noise.
  /// progress: how much of the task has passed, 0..1; it matters to a gradual transform only.
  void apply(std::uint8_t* image, std::uint64_t image_key, std::vector<std::uint8_t>& scratch,
             double progress = 1.0) const;

 private:
  Transform transform_;
  ImageFormat format_;
  std::vector<std::int32_t> source_;  // output pixel -> input pixel
};

}  // namespace eg
