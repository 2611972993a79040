// tests/data/files.h - small data sets in the real formats, written by the tests themselves.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "engine/file.h"
#include "tests/engine/temporary_folder.h"

namespace eg::test {

inline bool contains(const std::string& text, const std::string& part) {
  CAPTURE(text);
  CAPTURE(part);
  return text.find(part) != std::string::npos;
}

/// One CIFAR record: labels, then 3072 pixels of which pixel k is (first + k) mod 256.
inline std::string cifar_record(const std::vector<int>& labels, int first) {
  std::string record;
  for (const int l : labels) record += char(l);
  for (int k = 0; k < 3072; ++k) record += char((first + k) & 255);
  return record;
}

inline std::string big_endian(std::uint32_t v) { return {char(v >> 24), char(v >> 16), char(v >> 8), char(v)}; }
/// IDX bytes of u8 values with these extents; value i is i * step mod `modulus`.
inline std::string idx_bytes(const std::vector<std::uint32_t>& extents, int step, int modulus) {
  std::string text{0, 0, 8, char(extents.size())};
  std::size_t count = 1;
  for (const std::uint32_t e : extents) text += big_endian(e), count *= e;
  for (std::size_t i = 0; i < count; ++i) text += char(int(i) * step % modulus);
  return text;
}
/// A whole IDX set: 20 training and 10 test images of 4 x 4, labels 0..4.
inline void write_idx(const TemporaryFolder& f) {
  write_file(f / "train-images-idx3-ubyte", idx_bytes({20, 4, 4}, 3, 256));
  write_file(f / "train-labels-idx1-ubyte", idx_bytes({20}, 1, 5));
  write_file(f / "t10k-images-idx3-ubyte", idx_bytes({10, 4, 4}, 5, 256));
  write_file(f / "t10k-labels-idx1-ubyte", idx_bytes({10}, 1, 5));
}

/// A gzip file (RFC 1952) with one stored block per 65535 bytes: valid without compressing anything.
inline std::string gzip_stored(const std::string& data) {
  std::string out{'\x1f', char(0x8b), 8, 0, 0, 0, 0, 0, 0, 3};
  std::size_t at = 0;
  do {
    const std::size_t n = std::min<std::size_t>(65535, data.size() - at);
    out += char(at + n == data.size());
    out += {char(n), char(n >> 8), char(~n), char(~n >> 8)};
    out += data.substr(at, n), at += n;
  } while (at < data.size());
  std::uint32_t crc = 0xffffffffu;
  for (const char c : data) {
    crc ^= std::uint8_t(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  crc = ~crc;
  for (const std::uint32_t v : {crc, std::uint32_t(data.size())})
    for (int i = 0; i < 4; ++i) out += char(v >> (8 * i));
  return out;
}

/// A ustar header, and an entry with its content padded to whole blocks.
inline std::string tar_header(const std::string& name, std::size_t size, char type) {
  std::string h(512, '\0');
  const auto put = [&](std::size_t at, const std::string& s) { h.replace(at, s.size(), s); };
  char octal[16];
  put(0, name), put(100, "0000644"), put(257, "ustar"), put(148, "        ");
  std::snprintf(octal, sizeof octal, "%011zo", size);
  put(124, octal);
  h[156] = type;
  unsigned sum = 0;
  for (const char c : h) sum += std::uint8_t(c);
  std::snprintf(octal, sizeof octal, "%06o", sum);
  put(148, std::string(octal) + '\0');
  return h;
}
inline std::string tar_entry(const std::string& name, const std::string& text, char type = '0') {
  std::string e = tar_header(name, text.size(), type) + text;
  e.resize((e.size() + 511) / 512 * 512, '\0');
  return e;
}
inline const std::string kTarEnd(1024, '\0');

/// A 24-bit BMP of one colour, with the top left pixel black.
inline std::string bmp(int width, int height, int r, int g, int b) {
  const int row = (width * 3 + 3) / 4 * 4, size = 54 + row * height;
  const auto le = [](int v, int bytes) {
    std::string s;
    for (int i = 0; i < bytes; ++i) s += char(v >> (8 * i));
    return s;
  };
  std::string file = "BM" + le(size, 4) + le(0, 4) + le(54, 4) + le(40, 4) + le(width, 4) + le(height, 4) + le(1, 2) +
                     le(24, 2) + le(0, 4) + le(row * height, 4) + le(2835, 4) + le(2835, 4) + le(0, 4) + le(0, 4);
  for (int y = 0; y < height; ++y) {
    std::string line;
    for (int x = 0; x < width; ++x) {
      const bool black = x == 0 && y == height - 1;  // rows are stored bottom up
      line += {char(black ? 0 : b), char(black ? 0 : g), char(black ? 0 : r)};
    }
    line.resize(std::size_t(row), 0);
    file += line;
  }
  return file;
}

inline std::vector<std::uint8_t> pixels(const Dataset& d, Split s, std::int64_t i, ImageFormat format) {
  std::vector<std::uint8_t> out(std::size_t(format.bytes()) + 16, 0xcd);
  d.image(s, i, format, out.data());
  CHECK(std::all_of(out.end() - 16, out.end(), [](std::uint8_t v) { return v == 0xcd; }));  // nothing past the end
  out.resize(out.size() - 16);
  return out;
}

}  // namespace eg::test
