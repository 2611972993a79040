// data/augment.h - random changes of training images, every draw keyed by the sample's global number.
//
// Crop and flip are integers only: the device applies them while it cuts patches (engine/kernels.h, PatchifyFwd).
// RandAugment, mixup and CutMix work on 8-bit images on the host.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/stream.h"

namespace eg {

/// Which random changes training images get; the default is none.
struct AugmentConfig {
  int crop_padding = 0;     // pixels of zero padding around the image from which a same-sized crop is drawn; 0: off
  bool flip = false;        // horizontal, with probability 1/2
  int randaugment_ops = 0;  // operations per image (Cubuk et al. 2019, arXiv:1909.13719); 0: off
  double randaugment_magnitude = 9.0;  // of 10
  double mixup = 0.0;                  // alpha of Beta(alpha, alpha) (Zhang et al. 2017, arXiv:1710.09412); 0: off
  double cutmix = 0.0;  // alpha (Yun et al. 2019, arXiv:1905.04899); with mixup also on each takes half of the samples
  bool geometric() const { return crop_padding > 0 || flip; }
  bool mixes() const { return mixup > 0.0 || cutmix > 0.0; }
};
/// "none", "flip", "crop", "crop-flip"; the crop pads by an eighth of image_size. Throws Error{usage}.
AugmentConfig parse_augment(const std::string& text, int image_size);
/// Throws Error{usage} naming the value that is out of range.
void check_augment(const AugmentConfig& config, ImageFormat format);

/// {top, left, flip} as PatchifyFwd reads it: top and left in [-padding, padding].
using Crop = std::array<std::int32_t, 3>;
/// The same integers for the same (seed, task, sample), whatever the batch size, thread or rank.
Crop draw_crop(const AugmentConfig& config, std::uint64_t seed, std::uint32_t task, std::uint64_t sample);
/// The crop done on the host, for images that are mixed afterwards. in and out must not overlap.
void apply_crop(const Crop& crop, ImageFormat format, const std::uint8_t* in, std::uint8_t* out);

/// Applies config.randaugment_ops random operations in place.
void randaugment(const AugmentConfig& config, std::uint64_t seed, std::uint32_t task, std::uint64_t sample,
                 ImageFormat format, std::uint8_t* image, std::vector<std::uint8_t>& scratch);

/// How a sample is mixed with a partner: pixels outside the box weigh `keep` : 1 - keep (mixup, empty box) or pixels
/// inside the box come from the partner (CutMix). label_weight: the own label's share.
struct Mix {
  bool cut = false;
  double label_weight = 1.0, keep = 1.0;
  int top = 0, left = 0, bottom = 0, right = 0;
  double partner = 0.0;  // uniform in (0, 1): which other sample
};
Mix draw_mix(const AugmentConfig& config, std::uint64_t seed, std::uint32_t task, std::uint64_t sample,
             ImageFormat format);
/// image = mix(image, partner), rounded to nearest.
void apply_mix(const Mix& mix, ImageFormat format, std::uint8_t* image, const std::uint8_t* partner);

/// Mean and standard deviation per channel of pixel values in [0, 1].
struct ChannelStats {
  std::vector<double> mean, stddev;
};
/// Over at most max_images training images, evenly spaced through the set (so the result is fixed). The standard
/// deviation is never below 1/255. Exact integer sums: independent of thread count.
ChannelStats channel_stats(const Dataset& data, const SampleSet& samples, ImageFormat format,
                           const Transform& transform = {}, std::int64_t max_images = 4096);

}  // namespace eg
