// data/pixels.h - decoding, resizing and channel conversion shared by the data sets (private to data/).
#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace eg::detail {

/// Writes `in` to out as `format`: grey copied to three channels or RGB to luma (ITU-R BT.601), then resized to
/// size x size (the aspect ratio is not kept) with a Mitchell filter enlarging and a box-like one shrinking. A plain
/// copy when nothing changes.
void convert(const Image& in, ImageFormat format, std::uint8_t* out);

/// Decodes JPEG, PNG or BMP bytes into planar pixels (1 or 3 channels; alpha is dropped, 16 bit reduced to 8).
/// Throws Error{format} naming `path` when the bytes are no such image, are damaged, or claim more than 2^26 pixels.
struct Decoded {
  std::vector<std::uint8_t> pixels;
  Image image;
};
Decoded decode_image(std::string_view bytes, const std::filesystem::path& path);
/// The same of a file. Throws Error{io} when it cannot be read or has more than 256 MiB.
Decoded decode_file(const std::filesystem::path& file);

/// What is wrong with the container of a PNG, JPEG or BMP file, or "". width x height: what a BMP's header claims.
std::string image_damage(std::string_view bytes, int width, int height);

/// Remembers converted images of the first format that was asked for, as long as the budget lasts. Thread-safe: an
/// entry is published once, complete; two threads that miss at the same time both compute the same bytes.
class ImageCache {
 public:
  ImageCache(std::int64_t images, std::int64_t budget_bytes) : entries_(std::size_t(images)), budget_(budget_bytes) {}
  ~ImageCache();
  ImageCache(const ImageCache&) = delete;
  ImageCache& operator=(const ImageCache&) = delete;
  /// Copies entry i to out; false when it is not held in this format.
  bool get(std::int64_t i, ImageFormat format, std::uint8_t* out) const;
  void put(std::int64_t i, ImageFormat format, const std::uint8_t* pixels);

 private:
  std::vector<std::atomic<std::uint8_t*>> entries_;
  std::atomic<std::int64_t> budget_;
  std::atomic<std::uint64_t> format_{0};  // channels << 32 | size
};

/// Groups indices 0..labels.size()-1 by label.
std::vector<std::vector<std::int64_t>> group_by_label(const std::vector<std::int32_t>& labels, int classes);

/// dir itself or dir/sub, whichever holds `file`. Throws Error{io} naming both places and the remedy.
std::filesystem::path find_data_dir(const std::filesystem::path& dir, const char* sub, const char* file,
                                    const char* remedy);

}  // namespace eg::detail
