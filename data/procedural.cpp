// data/procedural.cpp - an unlimited family of image classes that no pixel statistics give away.
//
// A class is a closed outline (radius as a short Fourier series of the angle) filled with a texture (stripes, checks,
// rings or dots of a class-specific frequency and angle). An image draws anew: position, scale, rotation, texture
// phase, both colours and so the polarity, a shaded background, distractors and noise. Because figure and ground swap
// their brightness at random, the mean image of every class is the same grey: a linear classifier finds next to
// nothing, while anything that compares neighbouring pixels can tell the classes apart. Every number comes from Philox
// keys of (seed, class) or (seed, class, index), so an image costs no memory until it is drawn.
#include <algorithm>
#include <array>
#include <cmath>

#include "data/dataset.h"
#include "data/pixels.h"
#include "engine/error.h"
#include "engine/rng.h"

namespace eg {
namespace {

constexpr double kTau = 6.283185307179586;

/// Walks through the draws of one key.
struct Draws {
  Key k;
  std::uint64_t at = 0;
  double uniform(double low, double high) { return low + (high - low) * k.uniform(at++); }
  std::uint32_t below(std::uint32_t n) { return k.below(at++, n); }
};

struct ClassSpec {
  std::array<double, 4> amplitude, phase;  // harmonics 2..5 of the outline
  std::uint32_t texture;                   // stripes, checks, rings, dots
  double frequency, angle;                 // cycles per half image, relative to the outline
};

ClassSpec draw_class(std::uint64_t seed, std::int32_t c) {
  Draws d{key(seed, "procedural/class", "", std::uint32_t(c))};
  ClassSpec s;
  for (std::size_t h = 0; h < 4; ++h) {
    s.amplitude[h] = d.uniform(0.0, 0.34 / (1.0 + 0.35 * double(h)));
    s.phase[h] = d.uniform(0.0, kTau);
  }
  s.texture = d.below(4);
  s.frequency = d.uniform(1.6, 4.2);
  s.angle = d.uniform(0.0, kTau / 2);
  return s;
}

struct Colour {
  std::array<double, 3> rgb;
};

/// Two colours whose brightness differs by a drawn contrast, either one the brighter.
std::array<Colour, 2> draw_colours(Draws& d) {
  const double contrast = d.uniform(70.0, 120.0), middle = d.uniform(contrast / 2 + 10, 245 - contrast / 2);
  const double sign = d.below(2) ? 0.5 : -0.5;
  std::array<Colour, 2> colours;
  for (std::size_t i = 0; i < 2; ++i) {
    const double brightness = middle + (i ? -sign : sign) * contrast;
    const double tint = d.uniform(0.0, 45.0), hue = d.uniform(0.0, kTau);
    for (std::size_t c = 0; c < 3; ++c) colours[i].rgb[c] = brightness + tint * std::cos(hue + kTau / 3 * double(c));
  }
  return colours;
}

struct Spot {
  double x, y, radius, aspect, cosine, sine;
};

struct Scene {
  ClassSpec spec;
  double x, y, scale, cosine, sine, phase_u, phase_v;
  std::array<Colour, 2> colours;
  std::array<double, 3> shade;  // direction and strength of the background's gradient
  std::array<Spot, 3> spots;
  int spot_count;
  double noise;
};

Scene draw_scene(const ClassSpec& spec, Draws& d) {
  Scene s;
  s.spec = spec;
  s.x = d.uniform(-0.28, 0.28), s.y = d.uniform(-0.28, 0.28);
  s.scale = d.uniform(0.48, 0.72);
  const double turn = d.uniform(-0.6, 0.6);
  s.cosine = std::cos(turn), s.sine = std::sin(turn);
  s.phase_u = d.uniform(0.0, kTau), s.phase_v = d.uniform(0.0, kTau);
  s.colours = draw_colours(d);
  const double slope = d.uniform(0.0, kTau);
  s.shade = {std::cos(slope), std::sin(slope), d.uniform(0.0, 35.0)};
  s.spot_count = int(d.below(4));
  for (Spot& spot : s.spots) {
    const double angle = d.uniform(0.0, kTau);
    spot = {d.uniform(-1.0, 1.0), d.uniform(-1.0, 1.0), d.uniform(0.06, 0.16),
            d.uniform(1.0, 3.0),  std::cos(angle),      std::sin(angle)};
  }
  s.noise = d.uniform(4.0, 14.0);
  return s;
}

/// 0 below the edge, 1 above it, linear over one pixel: anti-aliasing.
double step(double distance, double pixel) { return std::clamp(distance / pixel + 0.5, 0.0, 1.0); }

double texture(const Scene& s, double u, double v) {
  const double c = std::cos(s.spec.angle), n = std::sin(s.spec.angle), f = s.spec.frequency * kTau / 2;
  const double a = f * (c * u + n * v) + s.phase_u, b = f * (c * v - n * u) + s.phase_v;
  switch (s.spec.texture) {
    case 0: return std::sin(a);
    case 1: return std::sin(a) * std::sin(b) * 1.5;
    case 2: return std::sin(f * std::hypot(u, v) + s.phase_u);
    default: return std::sin(a) + std::sin(b) - 0.6;
  }
}

/// How much of the second colour point (x, y) of [-1, 1]^2 shows.
double figure(const Scene& s, double x, double y, double pixel) {
  const double u = (s.cosine * (x - s.x) + s.sine * (y - s.y)) / s.scale;
  const double v = (s.cosine * (y - s.y) - s.sine * (x - s.x)) / s.scale;
  const double angle = std::atan2(v, u);
  double radius = 1.0;
  for (std::size_t h = 0; h < 4; ++h) radius += s.spec.amplitude[h] * std::cos(double(h + 2) * angle + s.spec.phase[h]);
  const double inside = step((radius - std::hypot(u, v)) * s.scale, pixel);
  double show = 0.0;
  if (inside > 0.0) show = inside * std::clamp(0.5 + 1.2 * texture(s, u * s.scale * 2, v * s.scale * 2), 0.0, 1.0);
  for (int i = 0; i < s.spot_count; ++i) {
    const Spot& p = s.spots[std::size_t(i)];
    const double du = p.cosine * (x - p.x) + p.sine * (y - p.y), dv = p.cosine * (y - p.y) - p.sine * (x - p.x);
    show = std::max(show, step(p.radius - std::hypot(du / p.aspect, dv * p.aspect), pixel));
  }
  return show;
}

class Procedural : public Dataset {
 public:
  explicit Procedural(const ProceduralOptions& options) : o_(options) {
    check(o_.classes >= 1 && o_.train_per_class >= 1 && o_.test_per_class >= 1, Kind::usage, [&] {
      return cat("procedural images: ", o_.classes, " classes with ", o_.train_per_class, " training and ",
                 o_.test_per_class, " test images each; every number must be at least 1");
    });
  }
  std::string name() const override { return "procedural"; }
  int classes() const override { return o_.classes; }
  std::string class_name(int c) const override {
    check_class(c);
    constexpr const char* kTextures[] = {"stripes", "checks", "rings", "dots"};
    return cat(kTextures[draw_class(o_.seed, c).texture], ' ', c);
  }
  std::int64_t size(Split split) const override { return std::int64_t(o_.classes) * per_class(split); }
  std::int32_t label(Split split, std::int64_t i) const override {
    check_index(split, i);
    return std::int32_t(i / per_class(split));
  }
  std::vector<std::int64_t> indices_of(Split split, int c) const override {
    check_class(c);
    std::vector<std::int64_t> indices(std::size_t(per_class(split)));
    for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = c * per_class(split) + std::int64_t(i);
    return indices;
  }
  void image(Split split, std::int64_t i, ImageFormat format, std::uint8_t* out) const override {
    check_index(split, i);
    check_format(format);
    if (format.channels == 3) return draw(split, i, format.size, out);
    std::vector<std::uint8_t> rgb(std::size_t(ImageFormat{3, format.size}.bytes()));
    draw(split, i, format.size, rgb.data());
    detail::convert({rgb.data(), 3, format.size, format.size}, format, out);
  }
  ImageFormat native() const override { return {3, 0}; }

 private:
  std::int64_t per_class(Split split) const { return split == Split::train ? o_.train_per_class : o_.test_per_class; }

  void draw(Split split, std::int64_t i, int size, std::uint8_t* out) const {
    const auto c = std::int32_t(i / per_class(split));
    // Training and test images of a class are draws of one family at different indices of one key.
    const std::uint64_t sample = std::uint64_t(i % per_class(split)) * 2 + (split == Split::test);
    Draws d{key(o_.seed, "procedural/image", "", std::uint32_t(c)), sample << 32};
    const Scene s = draw_scene(draw_class(o_.seed, c), d);
    const double pixel = 2.0 / size;
    const auto plane = std::size_t(size) * std::size_t(size);
    // Sums of four bytes are near enough to normal and cost one Philox word per value.
    const Key noise = key(o_.seed, "procedural/noise", "", std::uint32_t(c));
    const std::uint64_t first = sample << 32;
    for (std::size_t at = 0; at < plane; ++at) {
      const double x = (double(at % std::size_t(size)) + 0.5) * pixel - 1.0;
      const double y = (double(at / std::size_t(size)) + 0.5) * pixel - 1.0;
      const double show = figure(s, x, y, pixel), shade = s.shade[2] * (s.shade[0] * x + s.shade[1] * y);
      const Philox4 words = philox4x32_10(
          {std::uint32_t(first / 4 + at), std::uint32_t((first / 4 + at) >> 32), noise.step, noise.stream},
          std::uint32_t(noise.seed), std::uint32_t(noise.seed >> 32));
      for (std::size_t ch = 0; ch < 3; ++ch) {
        const std::uint32_t w = words[ch];
        const double sum = double((w & 255) + (w >> 8 & 255) + (w >> 16 & 255) + (w >> 24)) - 510.0;
        const double value = s.colours[0].rgb[ch] + show * (s.colours[1].rgb[ch] - s.colours[0].rgb[ch]) + shade +
                             s.noise * sum / 147.8;  // 147.8: standard deviation of the sum
        out[ch * plane + at] = std::uint8_t(std::lround(std::clamp(value, 0.0, 255.0)));
      }
    }
  }

  ProceduralOptions o_;
};

}  // namespace

std::unique_ptr<Dataset> make_procedural(const ProceduralOptions& options) {
  return std::make_unique<Procedural>(options);
}

}  // namespace eg
