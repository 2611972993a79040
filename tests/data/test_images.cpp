// tests/data/test_images.cpp - one image file of each kind: what is decoded, what is resized, what is damaged.
#include <algorithm>
#include <cmath>

#include "data/pixels.h"
#include "tests/data/files.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>
#pragma GCC diagnostic pop

using namespace eg;
using namespace eg::test;

namespace {

using Bytes = std::vector<std::uint8_t>;

void append(void* self, void* data, int size) {
  static_cast<std::string*>(self)->append(static_cast<const char*>(data), std::size_t(size));
}
std::string png(int width, int height, int channels, const Bytes& interleaved) {
  std::string out;
  REQUIRE(stbi_write_png_to_func(append, &out, width, height, channels, interleaved.data(), width * channels));
  return out;
}
std::string jpeg(int width, int height, int channels, const Bytes& interleaved) {
  std::string out;
  REQUIRE(stbi_write_jpg_to_func(append, &out, width, height, channels, interleaved.data(), 100));
  return out;
}

/// Interleaved pixels: a different ramp in every channel.
Bytes ramp(int width, int height, int channels) {
  Bytes b;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c) b.push_back(std::uint8_t(20 + 5 * x + 3 * y + 40 * c));
  return b;
}
/// The planes that decoding must bring: the first `keep` of `channels`.
Bytes planes(const Bytes& interleaved, int channels, int keep) {
  Bytes b;
  for (int c = 0; c < keep; ++c)
    for (std::size_t i = std::size_t(c); i < interleaved.size(); i += std::size_t(channels))
      b.push_back(interleaved[i]);
  return b;
}

}  // namespace

TEST_CASE("images: PNG in grey, grey with alpha, RGB and RGBA keep their pixels, alpha is left out") {
  for (const auto& [width, height] : {std::pair(1, 1), std::pair(7, 13), std::pair(31, 33)})
    for (int channels = 1; channels <= 4; ++channels) {
      CAPTURE(channels);
      const Bytes in = ramp(width, height, channels);
      const int keep = channels <= 2 ? 1 : 3;
      const detail::Decoded d = detail::decode_image(png(width, height, channels, in), "x.png");
      CHECK(d.image.channels == keep);
      CHECK(d.image.width == width);
      CHECK(d.image.height == height);
      CHECK(Bytes(d.pixels.begin(), d.pixels.end()) == planes(in, channels, keep));
    }
}

TEST_CASE("images: JPEG in grey and colour comes out near what went in") {
  for (const int channels : {1, 3}) {
    const Bytes in = ramp(17, 16, channels);
    const detail::Decoded d = detail::decode_image(jpeg(17, 16, channels, in), "x.jpg");
    CHECK(d.image.width == 17);
    CHECK(d.image.height == 16);
    // Quality 100: all quantisation steps are 1, so a coefficient errs by 1/2 and a pixel by at most half the largest
    // sum of |basis functions|, 2.64^2 / 2 = 3.5. Colour adds a chroma error times at most 1.772; roundings add 1.
    const int bound = channels == 1 ? 5 : 11;
    const Bytes want = planes(in, channels, d.image.channels == 1 ? 1 : channels);
    for (int c = 0; c < d.image.channels; ++c)
      for (std::size_t i = 0; i < 17 * 16; ++i) {
        const std::size_t from = channels == 1 ? i : std::size_t(c) * 17 * 16 + i;
        REQUIRE(std::abs(int(d.pixels[std::size_t(c) * 17 * 16 + i]) - int(want[from])) <= bound);
      }
  }
}

TEST_CASE("images: whatever is cut off, it is refused by name") {
  const Bytes in = ramp(24, 24, 3);
  const struct {
    const char* name;
    std::string bytes;
  } files[] = {{"x.png", png(24, 24, 3, in)}, {"x.jpg", jpeg(24, 24, 3, in)}, {"x.bmp", bmp(24, 24, 9, 80, 200)}};
  for (const auto& [name, bytes] : files) {
    CHECK(detail::decode_image(bytes, name).image.width == 24);
    for (const double share : {0.0, 0.01, 0.3, 0.5, 0.9, 0.98}) {
      CAPTURE(share);
      const std::string cut = bytes.substr(0, std::size_t(share * double(bytes.size())));
      CHECK(contains(error_text(Kind::format, [&, name = name] { detail::decode_image(cut, name); }), name));
    }
  }
}

TEST_CASE("images: a JPEG may end late, and its end is not found inside a thumbnail") {
  const std::string whole = jpeg(24, 24, 3, ramp(24, 24, 3)), small = jpeg(8, 8, 3, ramp(8, 8, 3));
  CHECK(detail::decode_image(whole + std::string(100, '\0'), "x.jpg").image.width == 24);
  const std::size_t length = small.size() + 2;
  const std::string app1 = std::string("\xff\xe1") + char(length >> 8) + char(length & 255) + small;
  const std::string nested = whole.substr(0, 2) + app1 + whole.substr(2);
  CHECK(detail::decode_image(nested, "x.jpg").image.width == 24);
  const std::string cut = nested.substr(0, nested.size() - 40);
  CHECK(contains(error_text(Kind::format, [&] { detail::decode_image(cut, "x.jpg"); }), "x.jpg"));
}

TEST_CASE("images: a header that claims too much is refused before memory is taken") {
  std::string huge = png(3, 3, 3, ramp(3, 3, 3));
  huge.replace(16, 8, big_endian(10000) + big_endian(10000));
  CHECK(contains(error_text(Kind::format, [&] { detail::decode_image(huge, "x.png"); }), "10000 x 10000"));
}

TEST_CASE("images: a flipped bit in a PNG is noticed wherever it is") {
  const std::string whole = png(9, 9, 3, ramp(9, 9, 3));
  for (std::size_t at = 0; at < whole.size(); ++at) {
    CAPTURE(at);
    std::string bad = whole;
    bad[at] = char(bad[at] ^ 4);
    error_text(Kind::format, [&] { detail::decode_image(bad, "x.png"); });
  }
}

TEST_CASE("images: resizing keeps flat images flat and ramps symmetric, at awkward sizes") {
  const int sizes[] = {1, 2, 3, 31, 32, 33};
  for (const int from : sizes)
    for (const int to : sizes) {
      CAPTURE(from);
      CAPTURE(to);
      Bytes in(std::size_t(from * from), 173), out(std::size_t(to * to));
      detail::convert({in.data(), 1, from, from}, {1, to}, out.data());
      CHECK(std::all_of(out.begin(), out.end(), [](int v) { return v == 173; }));
      const int step = 120 / from;
      for (std::size_t i = 0; i < in.size(); ++i) in[i] = std::uint8_t(60 + int(i) % from * step);
      detail::convert({in.data(), 1, from, from}, {1, to}, out.data());
      // A symmetric filter maps a ramp to something odd about its middle; each of the two pixels is rounded once.
      for (std::size_t i = 0; i < out.size(); ++i) {
        const std::size_t mirrored = i / std::size_t(to) * std::size_t(to) + std::size_t(to - 1) - i % std::size_t(to);
        REQUIRE(std::abs(out[i] + out[mirrored] - (120 + (from - 1) * step)) <= 1);
      }
      if (from > 1 && to > 1) CHECK(out[0] < out[std::size_t(to - 1)]);
    }
}

TEST_CASE("images: a JPEG's Huffman table with more codes than symbols is refused, also behind fill bytes") {
  const std::string whole = jpeg(9, 9, 3, ramp(9, 9, 3));
  const std::size_t table = whole.find("\xff\xc4");
  REQUIRE(table != std::string::npos);
  std::string many = whole;
  many.replace(table + 5, 16, std::string(16, '\xff'));  // 16 x 255 codes; stb_image has room for 256
  for (const std::string& fill : {std::string(), std::string(1, '\xff'), std::string(9, '\xff')}) {
    CHECK(detail::decode_image(fill + whole, "x.jpg").image.width == 9);
    CHECK(contains(error_text(Kind::format, [&] { detail::decode_image(fill + many, "x.jpg"); }),
                   "x.jpg: the Huffman table"));
  }
}

TEST_CASE("images: the fuzzer's corpus decodes where it is good and is refused by name where it is bad") {
  int good = 0, bad = 0;
  for (const auto& entry : std::filesystem::directory_iterator(EVERGRAD_TEST_FILES "/fuzz/corpus/image")) {
    const std::string name = entry.path().filename().string(), bytes = read_file(entry.path());
    CAPTURE(name);
    if (name.starts_with("good_")) {
      ++good;
      const detail::Decoded d = detail::decode_image(bytes, name);
      CHECK(d.image.width == 5);
      CHECK(d.image.height == 3);
    } else {
      ++bad;
      CHECK(contains(error_text(Kind::format, [&] { detail::decode_image(bytes, name); }), name));
    }
  }
  CHECK(good == 8);
  CHECK(bad >= 3);
}
