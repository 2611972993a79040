// data/pixels.cpp - stb_image and stb_image_resize behind two functions, and the cache of converted images.
#include "data/pixels.h"

#include <algorithm>
#include <cstring>

#include "engine/error.h"

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#endif
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#include <stb_image.h>
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#define STB_IMAGE_RESIZE_STATIC
#include <stb_image_resize.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace eg {

void check_format(ImageFormat format) {
  check(format.channels == 1 || format.channels == 3, Kind::usage,
        [&] { return cat("images have 1 or 3 channels, not ", format.channels); });
  check(format.size >= 1 && format.size <= 4096, Kind::usage,
        [&] { return cat("an image size of ", format.size, " is outside 1..4096"); });
}

namespace detail {
namespace {

constexpr std::int64_t kMaxPixels = std::int64_t(1) << 26;

void resize_plane(const std::uint8_t* in, int height, int width, int size, std::uint8_t* out) {
  check(stbir_resize_uint8(in, width, height, 0, out, size, size, 0, 1) != 0, Kind::memory, [&] {
    return cat("resizing an image of ", width, " x ", height, " to ", size, " x ", size, " ran out of memory");
  });
}

std::vector<std::uint8_t> luma(const Image& in) {
  const std::size_t plane = std::size_t(in.height) * std::size_t(in.width);
  std::vector<std::uint8_t> grey(plane);
  const std::uint8_t *r = in.pixels, *g = r + plane, *b = g + plane;
  for (std::size_t i = 0; i < plane; ++i) grey[i] = std::uint8_t((299 * r[i] + 587 * g[i] + 114 * b[i] + 500) / 1000);
  return grey;
}

}  // namespace

void convert(const Image& in, ImageFormat format, std::uint8_t* out) {
  check_format(format);
  if (in.channels == 3 && format.channels == 1) {
    const std::vector<std::uint8_t> grey = luma(in);
    return convert({grey.data(), 1, in.height, in.width}, format, out);
  }
  const std::size_t from = std::size_t(in.height) * std::size_t(in.width);
  const std::size_t to = std::size_t(format.size) * std::size_t(format.size);
  const bool same_size = in.height == format.size && in.width == format.size;
  for (int c = 0; c < in.channels; ++c) {
    if (same_size)
      std::memcpy(out + std::size_t(c) * to, in.pixels + std::size_t(c) * from, to);
    else
      resize_plane(in.pixels + std::size_t(c) * from, in.height, in.width, format.size, out + std::size_t(c) * to);
  }
  for (int c = in.channels; c < format.channels; ++c) std::memcpy(out + std::size_t(c) * to, out, to);
}

Decoded decode_image(std::string_view bytes, const std::filesystem::path& path) {
  const auto* data = reinterpret_cast<const stbi_uc*>(bytes.data());
  check(bytes.size() <= std::size_t(1) << 30, Kind::format,
        [&] { return cat(path.string(), ": ", bytes.size(), " bytes are too many for one image (at most 1 GiB)"); });
  int width = 0, height = 0, stored = 0;
  const auto check_intact = [&] {
    const std::string damage = image_damage(bytes, width, height);
    check(damage.empty(), Kind::format, [&] { return cat(path.string(), ": ", damage); });
  };
  const bool jpeg = bytes.starts_with('\xff');
  if (jpeg) check_intact();  // at once: even reading the header, stb_image believes a JPEG's tables
  check(stbi_info_from_memory(data, int(bytes.size()), &width, &height, &stored) != 0, Kind::format,
        [&] { return cat(path.string(), ": not a readable JPEG, PNG or BMP image (", stbi_failure_reason(), ")"); });
  check(width > 0 && height > 0 && std::int64_t(width) * height <= kMaxPixels, Kind::format, [&] {
    return cat(path.string(), ": the header claims ", width, " x ", height, " pixels; at most ", kMaxPixels,
               " are accepted");
  });
  if (!jpeg) check_intact();
  const int channels = stored <= 2 ? 1 : 3;
  std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(data, int(bytes.size()), &width, &height, &stored, channels), stbi_image_free);
  check(pixels != nullptr, Kind::format,
        [&] { return cat(path.string(), ": the image is damaged (", stbi_failure_reason(), ")"); });
  Decoded result;
  const std::size_t plane = std::size_t(width) * std::size_t(height);
  result.pixels.resize(plane * std::size_t(channels));
  for (std::size_t i = 0; i < plane; ++i)
    for (std::size_t c = 0; c < std::size_t(channels); ++c)
      result.pixels[c * plane + i] = pixels.get()[i * std::size_t(channels) + c];
  result.image = {result.pixels.data(), channels, height, width};
  return result;
}

ImageCache::~ImageCache() {
  for (auto& entry : entries_) delete[] entry.load(std::memory_order_relaxed);
}

bool ImageCache::get(std::int64_t i, ImageFormat format, std::uint8_t* out) const {
  if (format_.load(std::memory_order_acquire) != (std::uint64_t(format.channels) << 32 | std::uint64_t(format.size)))
    return false;
  const std::uint8_t* held = entries_[std::size_t(i)].load(std::memory_order_acquire);
  if (!held) return false;
  std::memcpy(out, held, std::size_t(format.bytes()));
  return true;
}

void ImageCache::put(std::int64_t i, ImageFormat format, const std::uint8_t* pixels) {
  const std::uint64_t code = std::uint64_t(format.channels) << 32 | std::uint64_t(format.size);
  std::uint64_t none = 0;
  if (!format_.compare_exchange_strong(none, code) && none != code) return;
  if (budget_.fetch_sub(format.bytes()) < format.bytes()) {
    budget_.fetch_add(format.bytes());
    return;
  }
  auto copy = std::make_unique<std::uint8_t[]>(std::size_t(format.bytes()));
  std::memcpy(copy.get(), pixels, std::size_t(format.bytes()));
  std::uint8_t* empty = nullptr;
  if (entries_[std::size_t(i)].compare_exchange_strong(empty, copy.get(), std::memory_order_acq_rel))
    copy.release();
  else
    budget_.fetch_add(format.bytes());
}

std::vector<std::vector<std::int64_t>> group_by_label(const std::vector<std::int32_t>& labels, int classes) {
  std::vector<std::vector<std::int64_t>> groups(static_cast<std::size_t>(classes));
  for (std::size_t i = 0; i < labels.size(); ++i) groups[std::size_t(labels[i])].push_back(std::int64_t(i));
  return groups;
}

std::filesystem::path find_data_dir(const std::filesystem::path& dir, const char* sub, const char* file,
                                    const char* remedy) {
  std::error_code ignored;
  for (const std::filesystem::path& place : {dir, dir / sub})
    if (std::filesystem::exists(place / file, ignored)) return place;
  fail(Kind::io, cat("no ", file, " in ", dir.string(), " or ", (dir / sub).string(), "; ", remedy));
}

}  // namespace detail
}  // namespace eg
