// tests/data/test_preview.cpp - the contact sheet: what is drawn where, and a PNG that another reader understands.
#include "data/preview.h"

#include <algorithm>
#include <array>
#include <memory>
#include <set>

#include "tests/data/files.h"

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb_image.h>
#pragma GCC diagnostic pop

using namespace eg;
using namespace eg::test;

namespace {

constexpr std::uint8_t kBackground = 24;
using Pixel = std::array<int, 3>;

Pixel at(const Canvas& c, int x, int y) {
  const auto i = (std::size_t(y) * std::size_t(c.width()) + std::size_t(x)) * 3;
  return {c.pixels()[i], c.pixels()[i + 1], c.pixels()[i + 2]};
}
std::int64_t drawn(const Canvas& c) {
  return std::int64_t(c.pixels().size()) - std::count(c.pixels().begin(), c.pixels().end(), kBackground);
}

/// 48 x 48 images of one colour, {40 + class, 90 + index, 140}: a cell tells what it shows.
class Flat : public Dataset {
 public:
  std::string name() const override { return "flat"; }
  int classes() const override { return 5; }
  std::string class_name(int c) const override { return cat("class ", c); }
  std::int64_t size(Split) const override { return 20; }
  std::int32_t label(Split, std::int64_t i) const override { return std::int32_t(i % 5); }
  std::vector<std::int64_t> indices_of(Split, int c) const override { return {c, c + 5, c + 10, c + 15}; }
  void image(Split s, std::int64_t i, ImageFormat f, std::uint8_t* out) const override {
    for (int c = 0; c < f.channels; ++c)
      std::fill_n(out + c * f.size * f.size, f.size * f.size,
                  std::uint8_t(c == 0   ? 40 + label(s, i)
                               : c == 1 ? 90 + i
                                        : 140));
  }
  ImageFormat native() const override { return {3, 48}; }
};

}  // namespace

TEST_CASE("preview: a row per class, its own images in it, also at one channel and odd sizes") {
  const Flat data;
  const Task task = whole_dataset(data);
  for (const int size : {1, 31, 48, 64}) {
    CAPTURE(size);
    const Canvas sheet = contact_sheet(data, task, {3, size}, 3, 4);
    const int cell = size * std::max(1, 48 / size);
    REQUIRE(sheet.width() >= 3 * cell);
    REQUIRE(sheet.height() >= 4 * cell);
    for (int k = 0; k < 4; ++k) {  // four of five classes, three of four images each
      const std::set<int> all = [&] {
        std::set<int> indices;
        for (std::size_t i = 0; i < sheet.pixels().size(); i += 3)
          if (sheet.pixels()[i] == 40 + k && sheet.pixels()[i + 2] == 140) indices.insert(sheet.pixels()[i + 1] - 90);
        return indices;
      }();
      CHECK(all == std::set<int>{k, k + 5, k + 10});
    }
    std::int64_t cells = 0;
    for (std::size_t i = 2; i < sheet.pixels().size(); i += 3) cells += sheet.pixels()[i] == 140;
    CHECK(cells == 12 * cell * cell);  // nothing overlaps, no text lies on an image
  }
  const Canvas grey = contact_sheet(data, task, {1, 31}, 2, 1);
  CHECK(std::count(grey.pixels().begin(), grey.pixels().end(), 40) == 2 * 31 * 31 * 3);
}

TEST_CASE("preview: the task's transform is applied") {
  const Flat data;
  Task task = whole_dataset(data);
  task.transform.kind = TransformKind::invert;
  const Canvas sheet = contact_sheet(data, task, {3, 48}, 1, 1);
  CHECK(std::count(sheet.pixels().begin(), sheet.pixels().end(), 255 - 140) == 48 * 48);
}

TEST_CASE("preview: the PNG decodes to what was drawn") {
  ProceduralOptions o;
  o.classes = 4, o.train_per_class = 8, o.test_per_class = 1;
  const std::unique_ptr<Dataset> d = make_procedural(o);
  const TemporaryFolder f;
  const Canvas sheet = contact_sheet(*d, whole_dataset(*d), {3, 24}, 6, 3);
  sheet.write_png(f / "sheet.png");
  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<unsigned char, void (*)(void*)> data(
      stbi_load((f / "sheet.png").c_str(), &width, &height, &channels, 3), stbi_image_free);
  REQUIRE(data);
  REQUIRE(width == sheet.width());
  REQUIRE(height == sheet.height());
  CHECK(channels == 3);
  CHECK(std::equal(sheet.pixels().begin(), sheet.pixels().end(), data.get()));
  error_text(Kind::io, [&] { sheet.write_png(f / "no/such/folder.png"); });
  CHECK(std::distance(std::filesystem::directory_iterator(f.path()), {}) == 1);  // no temporary is left
}

TEST_CASE("preview: text shows, is cut to the room, and takes any bytes") {
  Canvas c(200, 20, kBackground);
  const int width = c.text("Abc 19", 2, 3);
  CHECK(width > 20);
  CHECK(drawn(c) > 50);
  for (int y = 0; y < 20; ++y) CHECK(at(c, 2 + width + 1, y) == Pixel{kBackground, kBackground, kBackground});
  CHECK(Canvas::fit("short", 1000) == "short");
  const std::string cut = Canvas::fit("a very long class name", 60);
  CHECK(contains(cut, ".."));
  Canvas narrow(60, 20, kBackground);
  CHECK(narrow.text(cut, 0, 0) <= 60);
  CHECK(Canvas::fit("\xc3\xbc"
                    "ber\t\x7f\xff",
                    1000) == "?ber???");
  narrow.text("\xe6\xb0\xb4 too far to the right and below", 50, 15);
  CHECK(narrow.text("", 0, 0) == 0);
}

TEST_CASE("preview: images that stick out are clipped, impossible sheets are refused") {
  const std::vector<std::uint8_t> white(3 * 4 * 4, 255);
  Canvas c(6, 6, kBackground);
  for (const int x : {-20, -3, 5, 20})
    for (const int y : {-20, -3, 5, 20}) c.draw({white.data(), 3, 4, 4}, x, y, 1);
  CHECK(drawn(c) == 4 * 3);  // one pixel in every corner
  const Flat data;
  const Task task = whole_dataset(data);
  error_text(Kind::usage, [] { Canvas(0, 5); });
  error_text(Kind::usage, [] { Canvas(1 << 20, 1 << 20); });
  error_text(Kind::usage, [&] { contact_sheet(data, task, {3, 32}, 0, 1); });
  error_text(Kind::usage, [&] { contact_sheet(data, task, {3, 32}, 1, 0); });
  error_text(Kind::usage, [&] { contact_sheet(data, task, {3, 4096}, 2'000'000'000, 1); });
  error_text(Kind::usage, [&] { contact_sheet(data, task, {2, 32}); });
}
