// data/augment.cpp - crop, flip, mixup, CutMix and channel statistics. Every draw is a pure function of (seed, task,
// global sample number), so that results do not depend on batch size, threads or ranks.
#include "data/augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/error.h"
#include "engine/parallel.h"
#include "engine/rng.h"

namespace eg {

AugmentConfig parse_augment(const std::string& text, int image_size) {
  AugmentConfig config;
  const bool known = text == "none" || text == "flip" || text == "crop" || text == "crop-flip";
  check(known, Kind::usage,
        [&] { return cat("unknown augmentation '", text, "'; there are none, flip, crop and crop-flip"); });
  if (text.starts_with("crop")) config.crop_padding = std::max(1, image_size / 8);
  config.flip = text.ends_with("flip");
  return config;
}

void check_augment(const AugmentConfig& c, ImageFormat format) {
  const auto in = [](double value, double low, double high, const char* name) {
    check(value >= low && value <= high, Kind::usage,
          [&] { return cat("augmentation: ", name, " is ", value, ", outside ", low, "..", high); });
  };
  in(c.crop_padding, 0, format.size, "crop padding");
  in(c.randaugment_ops, 0, 16, "RandAugment operations");
  in(c.randaugment_magnitude, 0, 10, "RandAugment magnitude");
  in(c.mixup, 0, 100, "mixup alpha");
  in(c.cutmix, 0, 100, "CutMix alpha");
}

Crop draw_crop(const AugmentConfig& c, std::uint64_t seed, std::uint32_t task, std::uint64_t sample) {
  const Key k = key(seed, "augment/crop", "", task);
  Crop crop{};
  if (c.crop_padding > 0) {
    const auto span = std::uint32_t(2 * c.crop_padding + 1);
    crop[0] = std::int32_t(k.below(3 * sample, span)) - c.crop_padding;
    crop[1] = std::int32_t(k.below(3 * sample + 1, span)) - c.crop_padding;
  }
  if (c.flip) crop[2] = std::int32_t(k.below(3 * sample + 2, 2));
  return crop;
}

void apply_crop(const Crop& crop, ImageFormat format, const std::uint8_t* in, std::uint8_t* out) {
  const int n = format.size;
  for (int c = 0; c < format.channels; ++c)
    for (int y = 0; y < n; ++y)
      for (int x = 0; x < n; ++x) {
        const int from_y = crop[0] + y, from_x = crop[1] + (crop[2] ? n - 1 - x : x);
        const bool inside = from_y >= 0 && from_y < n && from_x >= 0 && from_x < n;
        *out++ =
            inside ? in[(std::size_t(c) * std::size_t(n) + std::size_t(from_y)) * std::size_t(n) + std::size_t(from_x)]
                   : std::uint8_t(0);
      }
}

namespace {

/// The logarithm of a Gamma(shape, 1) draw, by Marsaglia & Tsang (2000, "A simple method for generating gamma
/// variables"). The number of draws varies, so each sample owns `room` of them from `first`; after 15 rejections
/// (probability below 1e-19) the mode stands. The logarithm, because with small shapes most draws are below the
/// smallest double.
double log_gamma_draw(const Key& k, std::uint64_t first, double shape) {
  const double boosted = shape < 1.0 ? shape + 1.0 : shape;
  const double d = boosted - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  double value = d;
  for (std::uint64_t i = 0; i < 15; ++i) {
    const double x = k.normal(first / 2 + 2 * i);  // uses draws first + 4 i and first + 4 i + 1
    const double v = std::pow(1.0 + c * x, 3.0);
    if (v > 0.0 && std::log(k.uniform(first + 4 * i + 2)) < 0.5 * x * x + d - d * v + d * std::log(v)) {
      value = d * v;
      break;
    }
  }
  return std::log(value) + (shape < 1.0 ? std::log(k.uniform(first + 60)) / shape : 0.0);
}

/// Beta(alpha, alpha) as a ratio of gammas, a / (a + b).
double beta_draw(const Key& k, std::uint64_t sample, double alpha) {
  const double a = log_gamma_draw(k, sample * 128, alpha), b = log_gamma_draw(k, sample * 128 + 64, alpha);
  return 1.0 / (1.0 + std::exp(b - a));
}

}  // namespace

Mix draw_mix(const AugmentConfig& c, std::uint64_t seed, std::uint32_t task, std::uint64_t sample, ImageFormat format) {
  const Key k = key(seed, "augment/mix", "", task);
  const auto uniform = [&](std::uint64_t i) { return k.uniform(4 * sample + i); };
  Mix mix;
  mix.partner = uniform(0);
  mix.cut = c.cutmix > 0.0 && (c.mixup <= 0.0 || uniform(1) < 0.5);
  const double lambda = beta_draw(key(seed, "augment/lambda", "", task), sample, mix.cut ? c.cutmix : c.mixup);
  if (!mix.cut) {
    mix.keep = mix.label_weight = lambda;
    return mix;
  }
  // A box of share 1 - lambda about a uniform centre, cut at the border; the label's share is what was really kept.
  const double side = std::sqrt(1.0 - lambda) * format.size;
  const double y = uniform(2) * format.size, x = uniform(3) * format.size;
  const auto edge = [&](double at) { return std::clamp(int(std::lround(at)), 0, format.size); };
  mix.top = edge(y - side / 2), mix.bottom = edge(y + side / 2);
  mix.left = edge(x - side / 2), mix.right = edge(x + side / 2);
  const double area = double(mix.bottom - mix.top) * (mix.right - mix.left);
  mix.label_weight = 1.0 - area / (double(format.size) * format.size);
  return mix;
}

void apply_mix(const Mix& mix, ImageFormat format, std::uint8_t* image, const std::uint8_t* partner) {
  const auto n = std::size_t(format.size);
  if (!mix.cut) {
    for (std::int64_t i = 0; i < format.bytes(); ++i)
      image[i] = std::uint8_t(std::lround(mix.keep * image[i] + (1.0 - mix.keep) * partner[i]));
    return;
  }
  for (std::size_t c = 0; c < std::size_t(format.channels); ++c)
    for (auto y = std::size_t(mix.top); y < std::size_t(mix.bottom); ++y) {
      const std::size_t at = (c * n + y) * n + std::size_t(mix.left);
      std::memcpy(image + at, partner + at, std::size_t(mix.right - mix.left));
    }
}

ChannelStats channel_stats(const Dataset& data, const SampleSet& samples, ImageFormat format,
                           const Transform& transform, std::int64_t max_images) {
  check(samples.size() > 0, Kind::usage, [] { return std::string("channel statistics of an empty sample set"); });
  check(max_images > 0, Kind::usage, [&] { return cat("channel statistics over ", max_images, " images"); });
  const PreparedTransform prepared(transform, format);
  const std::int64_t n = std::min(samples.size(), max_images);
  const auto channels = std::size_t(format.channels);
  constexpr std::int64_t kGrain = 64;
  std::vector<std::uint64_t> sums(std::size_t(chunks_of(n, kGrain)) * channels * 2);
  parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    std::vector<std::uint8_t> image(std::size_t(format.bytes())), scratch;
    std::uint64_t* partial = sums.data() + std::size_t(chunk) * channels * 2;
    for (std::int64_t i = begin; i < end; ++i) {
      // i * size / n without overflow: both are below 2^31.
      const std::int64_t index = samples.indices[std::size_t(i * samples.size() / n)];
      data.image(samples.split, index, format, image.data());
      prepared.apply(image.data(), std::uint64_t(index) * 2 + (samples.split == Split::test), scratch);
      for (std::size_t j = 0; j < image.size(); ++j) {
        const std::size_t c = j / (image.size() / channels);
        partial[2 * c] += image[j];
        partial[2 * c + 1] += std::uint64_t(image[j]) * image[j];
      }
    }
  });
  ChannelStats stats;
  const double pixels = double(n) * format.size * format.size;
  for (std::size_t c = 0; c < channels; ++c) {
    std::uint64_t sum = 0, squares = 0;
    for (std::size_t at = 2 * c; at < sums.size(); at += 2 * channels) sum += sums[at], squares += sums[at + 1];
    const double mean = double(sum) / pixels, variance = double(squares) / pixels - mean * mean;
    stats.mean.push_back(mean / 255.0);
    stats.stddev.push_back(std::max(1.0, std::sqrt(std::max(0.0, variance))) / 255.0);
  }
  return stats;
}

}  // namespace eg
