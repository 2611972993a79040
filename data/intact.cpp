// data/intact.cpp - is an image file whole? stb_image fills what is missing from a JPEG or BMP file with zeros and
// checks no sums, so a half-copied file would train as a half-grey image. This looks at the containers only: PNG's
// chunks and their CRC-32 (ISO/IEC 15948), JPEG's markers up to the end of the image (ITU-T T.81, annex B), BMP's
// sizes.
#include <algorithm>
#include <array>

#include "data/pixels.h"
#include "engine/error.h"

namespace eg::detail {
namespace {

using std::string_view;

std::uint8_t byte_at(string_view b, std::size_t at) { return std::uint8_t(b[at]); }

std::uint32_t big_endian(string_view b, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | byte_at(b, at + i);
  return value;
}
std::uint32_t little_endian(string_view b, std::size_t at, std::size_t bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = bytes; i-- > 0;) value = value << 8 | byte_at(b, at + i);
  return value;
}

std::uint32_t crc32_of(string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int bit = 0; bit < 8; ++bit) t[i] = t[i] >> 1 ^ (t[i] & 1 ? 0xedb88320u : 0);
    }
    return t;
  }();
  std::uint32_t crc = 0xffffffffu;
  for (const char ch : bytes) crc = crc >> 8 ^ table[(crc ^ std::uint8_t(ch)) & 255];
  return ~crc;
}

std::string png_damage(string_view b) {
  for (std::size_t at = 8; b.size() - at >= 12;) {
    const std::size_t size = big_endian(b, at);
    if (size > b.size() - at - 12) break;
    if (crc32_of(b.substr(at + 4, size + 4)) != big_endian(b, at + 8 + size))
      return cat("the PNG chunk at byte ", at, " has a wrong checksum");
    if (b.substr(at + 4, 4) == "IEND") return "";
    at += size + 12;
  }
  return "the PNG data end before their end mark: the file is truncated";
}

/// Whether the Huffman tables of one segment have the at most 256 codes that T.81 allows. stb_image 2.27 believes their
/// counts and would write past its arrays.
bool huffman_tables_fit(string_view segment) {
  while (!segment.empty()) {
    if (segment.size() < 17) return false;
    std::size_t codes = 0;
    for (std::size_t i = 1; i <= 16; ++i) codes += byte_at(segment, i);
    if (codes > 256 || codes > segment.size() - 17) return false;
    segment.remove_prefix(17 + codes);
  }
  return true;
}

/// Walks from marker to marker; a thumbnail's own end mark lies inside a segment and is stepped over.
std::string jpeg_damage(string_view b) {
  const auto restart = [](std::uint8_t m) { return m >= 0xd0 && m <= 0xd7; };
  // Any number of fill bytes may stand before the mark that starts the image.
  for (std::size_t at = std::min(b.find_first_not_of('\xff'), b.size()) + 1; at + 1 < b.size();) {
    const std::uint8_t marker = byte_at(b, at + 1);
    if (byte_at(b, at) != 0xff || marker == 0xff || marker == 0 || marker == 1 || restart(marker)) {
      ++at;  // entropy-coded data, fill bytes, and marks without content
      continue;
    }
    if (marker == 0xd9) return "";
    if (at + 4 > b.size()) break;
    const std::size_t size = std::size_t(byte_at(b, at + 2)) << 8 | byte_at(b, at + 3);
    if (size < 2 || size > b.size() - at - 2) break;
    if (marker == 0xc4 && !huffman_tables_fit(b.substr(at + 4, size - 2)))
      return cat("the Huffman table at byte ", at, " of the JPEG data is damaged");
    at += 2 + size;
  }
  return "the JPEG data end before their end mark: the file is truncated";
}

std::string bmp_damage(string_view b, int width, int height) {
  if (b.size() < 30) return "the BMP header is truncated";
  const bool old = little_endian(b, 14, 4) == 12;
  const std::uint64_t offset = little_endian(b, 10, 4), bits = little_endian(b, old ? 24 : 28, 2);
  const std::uint64_t row = std::uint64_t(width) * bits;
  // The last row's padding may be left out.
  const std::uint64_t needed = offset + (row + 31) / 32 * 4 * std::uint64_t(height - 1) + (row + 7) / 8;
  if (needed <= b.size()) return "";
  return cat("a BMP image of ", width, " x ", height, " needs ", needed, " bytes, the file has ", b.size(),
             ": it is truncated");
}

}  // namespace

std::string image_damage(string_view bytes, int width, int height) {
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) return png_damage(bytes);
  if (bytes.starts_with('\xff')) return jpeg_damage(bytes);
  if (bytes.starts_with("BM")) return bmp_damage(bytes, width, height);
  return "";
}

}  // namespace eg::detail
