// data/image_file.cpp - see image_file.h.
#include "data/image_file.h"

#include "data/pixels.h"
#include "engine/file.h"

namespace eg {

namespace detail {

Decoded decode_file(const std::filesystem::path& file) {
  constexpr std::uint64_t kMostBytes = std::uint64_t(1) << 28;
  return decode_image(read_file(file, kMostBytes), file);
}

}  // namespace detail

void read_image(const std::filesystem::path& file, ImageFormat format, std::uint8_t* out) {
  check_format(format);
  detail::convert(detail::decode_file(file).image, format, out);
}

}  // namespace eg
