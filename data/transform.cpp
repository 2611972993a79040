// data/transform.cpp - pixel permutations and the domain shifts of methods.md C.2.
#include "data/transform.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/error.h"
#include "engine/rng.h"

namespace eg {
namespace {

constexpr double kPi = 3.14159265358979323846;

std::uint8_t to_u8(double value) { return std::uint8_t(std::lround(std::clamp(value, 0.0, 255.0))); }

std::vector<std::int32_t> permutation(std::int32_t n, const Transform& t) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  shuffle(order.begin(), order.size(), key(t.seed, "stream/permutation", to_string(t.kind), t.stream));
  return order;
}

std::vector<std::int32_t> source_table(const Transform& t, int size) {
  if (t.kind == TransformKind::permute_pixels) return permutation(size * size, t);
  check(t.patch > 0 && size % t.patch == 0, Kind::usage, [&] {
    return cat("a ", to_string(t.kind), " permutation needs a patch size that divides the image size, got patch ",
               t.patch, " and image ", size);
  });
  const int p = t.patch, side = size / p;
  const bool inside = t.kind == TransformKind::permute_in_patch;
  const std::vector<std::int32_t> order = permutation(inside ? p * p : side * side, t);
  std::vector<std::int32_t> source(std::size_t(size) * std::size_t(size));
  for (int y = 0; y < size; ++y)
    for (int x = 0; x < size; ++x) {
      int py = y / p, px = x / p, iy = y % p, ix = x % p;
      const std::int32_t from = order[std::size_t(inside ? iy * p + ix : py * side + px)];
      if (inside)
        iy = from / p, ix = from % p;
      else
        py = from / side, px = from % side;
      source[std::size_t(y * size + x)] = (py * p + iy) * size + px * p + ix;
    }
  return source;
}

void rotate(std::uint8_t* out, const std::uint8_t* in, ImageFormat f, double degrees) {
  // Quarter turns are exact: rounded cosines keep the sampling points on the pixel grid.
  const double angle = degrees * kPi / 180.0;
  const double quarter = degrees / 90.0;
  const bool exact = quarter == std::round(quarter);
  const double c = exact ? std::round(std::cos(angle)) : std::cos(angle);
  const double s = exact ? std::round(std::sin(angle)) : std::sin(angle);
  const double mid = (f.size - 1) / 2.0;
  for (int ch = 0; ch < f.channels; ++ch, in += f.size * f.size)
    for (int y = 0; y < f.size; ++y)
      for (int x = 0; x < f.size; ++x) {
        const double u = c * (x - mid) + s * (y - mid) + mid, v = -s * (x - mid) + c * (y - mid) + mid;
        const int x0 = int(std::floor(u)), y0 = int(std::floor(v));
        const double fx = u - x0, fy = v - y0;
        const auto at = [&](int yy, int xx) {
          return yy < 0 || xx < 0 || yy >= f.size || xx >= f.size ? 0.0 : double(in[yy * f.size + xx]);
        };
        *out++ = to_u8((at(y0, x0) * (1 - fx) + at(y0, x0 + 1) * fx) * (1 - fy) +
                       (at(y0 + 1, x0) * (1 - fx) + at(y0 + 1, x0 + 1) * fx) * fy);
      }
}

/// Rotation of RGB about the grey axis (Rodrigues' formula with axis (1,1,1)/sqrt 3).
void rotate_hue(std::uint8_t* p, ImageFormat f, double degrees) {
  if (f.channels != 3) return;
  const double c = std::cos(degrees * kPi / 180.0), s = std::sin(degrees * kPi / 180.0) / std::sqrt(3.0);
  const double same = c + (1 - c) / 3, next = (1 - c) / 3 - s, last = (1 - c) / 3 + s;
  const auto n = std::size_t(f.size) * std::size_t(f.size);
  for (std::size_t i = 0; i < n; ++i) {
    const double r = p[i], g = p[n + i], b = p[2 * n + i];
    p[i] = to_u8(same * r + next * g + last * b);
    p[n + i] = to_u8(last * r + same * g + next * b);
    p[2 * n + i] = to_u8(next * r + last * g + same * b);
  }
}

void scale_contrast(std::uint8_t* p, ImageFormat f, double factor) {
  const auto n = std::size_t(f.size) * std::size_t(f.size);
  for (int c = 0; c < f.channels; ++c, p += n) {
    const double mean = double(std::accumulate(p, p + n, std::uint64_t(0))) / double(n);
    for (std::size_t i = 0; i < n; ++i) p[i] = to_u8(factor * (p[i] - mean) + mean);
  }
}

/// Separable Gaussian out to 3 sigma; the border repeats.
void blur(std::uint8_t* p, ImageFormat f, double sigma) {
  const int reach = int(std::ceil(3 * sigma)), n = f.size;
  if (reach == 0) return;
  std::vector<double> weight(static_cast<std::size_t>(2 * reach + 1));
  double sum = 0.0;
  for (int i = -reach; i <= reach; ++i)
    sum += weight[std::size_t(i + reach)] = std::exp(-0.5 * i * i / (sigma * sigma));
  std::vector<double> rows(std::size_t(n) * std::size_t(n));
  for (int c = 0; c < f.channels; ++c, p += n * n) {
    for (int y = 0; y < n; ++y)
      for (int x = 0; x < n; ++x) {
        double value = 0.0;
        for (int i = -reach; i <= reach; ++i)
          value += weight[std::size_t(i + reach)] * p[y * n + std::clamp(x + i, 0, n - 1)];
        rows[std::size_t(y * n + x)] = value / sum;
      }
    for (int y = 0; y < n; ++y)
      for (int x = 0; x < n; ++x) {
        double value = 0.0;
        for (int i = -reach; i <= reach; ++i)
          value += weight[std::size_t(i + reach)] * rows[std::size_t(std::clamp(y + i, 0, n - 1) * n + x)];
        p[y * n + x] = to_u8(value / sum);
      }
  }
}

}  // namespace

const char* to_string(TransformKind kind) {
  switch (kind) {
    case TransformKind::none: return "none";
    case TransformKind::permute_pixels: return "pixels";
    case TransformKind::permute_in_patch: return "in-patch";
    case TransformKind::permute_patches: return "patches";
    case TransformKind::rotate: return "rotation";
    case TransformKind::hue: return "hue";
    case TransformKind::contrast: return "contrast";
    case TransformKind::blur: return "blur";
    case TransformKind::noise: return "noise";
    case TransformKind::invert: return "inversion";
  }
  return "?";
}

std::string Transform::describe() const {
  switch (kind) {
    case TransformKind::none: return "unchanged";
    case TransformKind::permute_pixels: return cat("pixels permuted, ", stream);
    case TransformKind::permute_in_patch: return cat("pixels permuted within patches, ", stream);
    case TransformKind::permute_patches: return cat("patches permuted, ", stream);
    case TransformKind::invert: return "inverted";
    default: return gradual ? cat(to_string(kind), ' ', start, " to ", amount) : cat(to_string(kind), ' ', amount);
  }
}

PreparedTransform::PreparedTransform(const Transform& transform, ImageFormat format)
    : transform_(transform), format_(format) {
  check_format(format);
  const TransformKind k = transform.kind;
  if (k == TransformKind::permute_pixels || k == TransformKind::permute_in_patch || k == TransformKind::permute_patches)
    source_ = source_table(transform, format.size);
}

void PreparedTransform::apply(std::uint8_t* image, std::uint64_t image_key, std::vector<std::uint8_t>& scratch,
                              double progress) const {
  const auto bytes = std::size_t(format_.bytes());
  const Transform& t = transform_;
  const double amount = t.gradual ? t.start + (t.amount - t.start) * progress : t.amount;
  switch (transform_.kind) {
    case TransformKind::none: return;
    case TransformKind::permute_pixels:
    case TransformKind::permute_in_patch:
    case TransformKind::permute_patches:
      scratch.assign(image, image + bytes);
      for (std::size_t at = 0; at < bytes; at += source_.size())
        for (std::size_t i = 0; i < source_.size(); ++i) image[at + i] = scratch[at + std::size_t(source_[i])];
      return;
    case TransformKind::rotate:
      scratch.assign(image, image + bytes);
      return rotate(image, scratch.data(), format_, amount);
    case TransformKind::hue: return rotate_hue(image, format_, amount);
    case TransformKind::contrast: return scale_contrast(image, format_, amount);
    case TransformKind::blur: return blur(image, format_, amount);
    case TransformKind::noise: {
      const Key k = key(transform_.seed, "stream/noise", "", transform_.stream);
      for (std::size_t i = 0; i < bytes; ++i)
        image[i] = to_u8(image[i] + 255.0 * amount * k.normal(image_key * bytes + i));
      return;
    }
    case TransformKind::invert:
      for (std::size_t i = 0; i < bytes; ++i) image[i] = std::uint8_t(255 - image[i]);
      return;
  }
}

}  // namespace eg
