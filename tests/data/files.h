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
