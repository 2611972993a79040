// data/randaugment.cpp - RandAugment (Cubuk et al. 2019, arXiv:1909.13719): a few operations drawn uniformly, all with
// one magnitude. Geometric ones fill with mid-grey, the middle of the range.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "data/augment.h"
#include "engine/rng.h"

namespace eg {
namespace {

struct Target {
  std::uint8_t* pixels;
  std::vector<std::uint8_t>& scratch;
  int channels, size;
  std::size_t plane() const { return std::size_t(size) * std::size_t(size); }
  std::size_t bytes() const { return plane() * std::size_t(channels); }
};

std::uint8_t to_u8(double value) { return std::uint8_t(std::lround(std::clamp(value, 0.0, 255.0))); }

/// out(x, y) = in(a x + b y + tx, c x + d y + ty) about the centre, bilinear.
void affine(Target t, double a, double b, double c, double d, double tx, double ty) {
  t.scratch.assign(t.pixels, t.pixels + t.bytes());
  const double mid = (t.size - 1) / 2.0;
  for (int y = 0; y < t.size; ++y)
    for (int x = 0; x < t.size; ++x) {
      const double u = a * (x - mid) + b * (y - mid) + tx + mid, v = c * (x - mid) + d * (y - mid) + ty + mid;
      const int x0 = int(std::floor(u)), y0 = int(std::floor(v));
      const double fx = u - x0, fy = v - y0;
      for (int ch = 0; ch < t.channels; ++ch) {
        const std::uint8_t* in = t.scratch.data() + std::size_t(ch) * t.plane();
        const auto at = [&](int yy, int xx) {
          return yy < 0 || xx < 0 || yy >= t.size || xx >= t.size ? 128.0 : double(in[yy * t.size + xx]);
        };
        const double top = at(y0, x0) * (1 - fx) + at(y0, x0 + 1) * fx;
        const double bottom = at(y0 + 1, x0) * (1 - fx) + at(y0 + 1, x0 + 1) * fx;
        t.pixels[std::size_t(ch) * t.plane() + std::size_t(y * t.size + x)] = to_u8(top * (1 - fy) + bottom * fy);
      }
    }
}

template <class F>
void each_plane(Target t, F f) {
  for (int c = 0; c < t.channels; ++c) f(t.pixels + std::size_t(c) * t.plane(), t.plane());
}

void autocontrast(Target t) {
  each_plane(t, [](std::uint8_t* p, std::size_t n) {
    const auto [low, high] = std::minmax_element(p, p + n);
    const double floor = *low, range = *high - floor;
    if (range > 0.0)
      for (std::size_t i = 0; i < n; ++i) p[i] = to_u8((p[i] - floor) * 255.0 / range);
  });
}

void equalize(Target t) {
  each_plane(t, [](std::uint8_t* p, std::size_t n) {
    std::array<std::size_t, 256> below{};
    for (std::size_t i = 0; i < n; ++i) ++below[p[i]];
    std::size_t sum = 0, first = below[*std::min_element(p, p + n)];
    for (auto& count : below) sum = count += sum;
    if (n > first)
      for (std::size_t i = 0; i < n; ++i) p[i] = to_u8(255.0 * double(below[p[i]] - first) / double(n - first));
  });
}

/// p = centre + factor (p - centre): brightness (centre 0), contrast (the mean).
void stretch(Target t, double factor, bool about_mean) {
  double centre = 0.0;
  if (about_mean) {
    for (std::size_t i = 0; i < t.bytes(); ++i) centre += t.pixels[i];
    centre /= double(t.bytes());
  }
  for (std::size_t i = 0; i < t.bytes(); ++i) t.pixels[i] = to_u8(centre + factor * (t.pixels[i] - centre));
}

void saturate(Target t, double factor) {
  if (t.channels != 3) return;
  const std::size_t n = t.plane();
  for (std::size_t i = 0; i < n; ++i) {
    const double grey = 0.299 * t.pixels[i] + 0.587 * t.pixels[n + i] + 0.114 * t.pixels[2 * n + i];
    for (std::size_t c = 0; c < 3; ++c) t.pixels[c * n + i] = to_u8(grey + factor * (t.pixels[c * n + i] - grey));
  }
}

/// Away from (factor > 1) or towards a 3 x 3 mean; the border stays.
void sharpen(Target t, double factor) {
  t.scratch.assign(t.pixels, t.pixels + t.bytes());
  for (int c = 0; c < t.channels; ++c)
    for (int y = 1; y + 1 < t.size; ++y)
      for (int x = 1; x + 1 < t.size; ++x) {
        const std::uint8_t* in = t.scratch.data() + std::size_t(c) * t.plane() + std::size_t(y * t.size + x);
        int sum = 0;
        for (int dy = -1; dy <= 1; ++dy)
          for (int dx = -1; dx <= 1; ++dx) sum += in[dy * t.size + dx];
        const double smooth = sum / 9.0;
        t.pixels[in - t.scratch.data()] = to_u8(smooth + factor * (*in - smooth));
      }
}

constexpr std::uint32_t kOperations = 14;

/// m in [0, 1] with the sign s for operations that have a direction.
void apply_one(std::uint32_t operation, double m, double s, Target t) {
  const double angle = s * m * 30.0 * 3.14159265358979323846 / 180.0;
  switch (operation) {
    case 0: return;
    case 1: return autocontrast(t);
    case 2: return equalize(t);
    case 3: return affine(t, std::cos(angle), std::sin(angle), -std::sin(angle), std::cos(angle), 0, 0);
    case 4: return affine(t, 1, s * m * 0.3, 0, 1, 0, 0);
    case 5: return affine(t, 1, 0, s * m * 0.3, 1, 0, 0);
    case 6: return affine(t, 1, 0, 0, 1, s * m * 0.33 * t.size, 0);
    case 7: return affine(t, 1, 0, 0, 1, 0, s * m * 0.33 * t.size);
    case 8:  // solarize: invert what is brighter than a threshold
      for (std::size_t i = 0; i < t.bytes(); ++i)
        if (t.pixels[i] >= 256.0 * (1.0 - m)) t.pixels[i] = std::uint8_t(255 - t.pixels[i]);
      return;
    case 9: {  // posterize: keep 8 - 4 m upper bits
      const auto mask = std::uint8_t(0xff << int(std::lround(4.0 * m)));
      for (std::size_t i = 0; i < t.bytes(); ++i) t.pixels[i] &= mask;
      return;
    }
    case 10: return stretch(t, 1.0 + s * 0.9 * m, false);
    case 11: return stretch(t, 1.0 + s * 0.9 * m, true);
    case 12: return saturate(t, 1.0 + s * 0.9 * m);
    default: return sharpen(t, 1.0 + s * 0.9 * m);
  }
}

}  // namespace

void randaugment(const AugmentConfig& config, std::uint64_t seed, std::uint32_t task, std::uint64_t sample,
                 ImageFormat format, std::uint8_t* image, std::vector<std::uint8_t>& scratch) {
  if (config.randaugment_ops <= 0) return;
  const Key k = key(seed, "augment/randaugment", "", task);
  for (int i = 0; i < config.randaugment_ops; ++i) {
    const std::uint64_t draw = sample * 32 + 2 * std::uint64_t(i);
    apply_one(k.below(draw, kOperations), config.randaugment_magnitude / 10.0, k.bits(draw + 1) & 1 ? 1.0 : -1.0,
              {image, scratch, format.channels, format.size});
  }
}

}  // namespace eg
