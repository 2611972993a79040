// data/preview.cpp - draws images and text on a canvas and writes it as PNG.
#include "data/preview.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/error.h"
#include "engine/file.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb_easy_font.h>
#include <stb_image_write.h>
#pragma GCC diagnostic pop

namespace eg {
namespace {

constexpr int kLine = 14, kGap = 3;

/// The font has ASCII only, and its functions read beyond their table for anything else: one '?' per other character.
std::string printable(const std::string& line) {
  std::string ascii;
  for (const char ch : line) {
    if ((std::uint8_t(ch) & 0xc0) == 0x80) continue;  // the further bytes of a UTF-8 character
    ascii += ch < 32 || ch > 126 ? '?' : ch;
  }
  return ascii;
}

int text_width(std::string ascii) { return stb_easy_font_width(ascii.data()); }

}  // namespace

Canvas::Canvas(int width, int height, std::uint8_t background) : width_(width), height_(height) {
  check(width > 0 && height > 0 && std::int64_t(width) * height <= std::int64_t(1) << 28, Kind::usage,
        [&] { return cat("a sheet of ", width, " x ", height, " pixels is too large; use fewer or smaller images"); });
  pixels_.assign(std::size_t(width) * std::size_t(height) * 3, background);
}

void Canvas::draw(const Image& image, int left, int top, int scale) {
  const int plane = image.height * image.width;
  for (int y = std::max(0, -top); y < image.height * scale && top + y < height_; ++y)
    for (int x = std::max(0, -left); x < image.width * scale && left + x < width_; ++x)
      for (int c = 0; c < 3; ++c) {
        const int from = (c < image.channels ? c : 0) * plane + y / scale * image.width + x / scale;
        pixels_[(std::size_t(top + y) * std::size_t(width_) + std::size_t(left + x)) * 3 + std::size_t(c)] =
            image.pixels[from];
      }
}

int Canvas::text(const std::string& line, int left, int top) {
  std::string ascii = printable(line);
  struct Vertex {
    float x, y, z;
    std::uint8_t colour[4];
  };
  std::vector<Vertex> quads(4 * (80 * ascii.size() + 1));
  const int count = stb_easy_font_print(float(left), float(top), ascii.data(), nullptr, quads.data(),
                                        int(quads.size() * sizeof(Vertex)));
  for (int q = 0; q < count; ++q) {
    const Vertex &a = quads[std::size_t(4 * q)], &b = quads[std::size_t(4 * q + 2)];  // opposite corners
    for (int y = std::max(0, int(a.y)); y < std::min(height_, int(std::ceil(b.y))); ++y)
      for (int x = std::max(0, int(a.x)); x < std::min(width_, int(std::ceil(b.x))); ++x)
        std::memset(&pixels_[(std::size_t(y) * std::size_t(width_) + std::size_t(x)) * 3], 235, 3);
  }
  return text_width(ascii);
}

std::string Canvas::fit(std::string line, int max_width) {
  line = printable(line);
  if (text_width(line) <= max_width) return line;
  while (!line.empty() && text_width(line + "..") > max_width) line.pop_back();
  return line + "..";
}

std::string Canvas::png() const {
  std::string bytes;
  const int ok = stbi_write_png_to_func(
      [](void* self, void* data, int count) {
        static_cast<std::string*>(self)->append(static_cast<const char*>(data), std::size_t(count));
      },
      &bytes, width_, height_, 3, pixels_.data(), width_ * 3);
  check(ok != 0, Kind::memory, [&] { return cat("encoding a PNG of ", width_, " x ", height_, " ran out of memory"); });
  return bytes;
}

void Canvas::write_png(const std::filesystem::path& path) const { write_file(path, png()); }

Canvas contact_sheet(const Dataset& data, const Task& task, ImageFormat format, int columns, int max_rows) {
  check_format(format);
  check(columns >= 1 && max_rows >= 1 && columns <= 1000 && max_rows <= 1000, Kind::usage,
        [&] { return cat("a sheet of ", columns, " columns and ", max_rows, " rows; each must be in 1..1000"); });
  const int scale = std::max(1, 48 / format.size), cell = format.size * scale + kGap;
  const int rows = std::min(max_rows, int(task.classes.size()));
  Canvas sheet(columns * cell + kGap, kLine + kGap + rows * (cell + kLine), 24);
  const int room = sheet.width() - 2 * kGap;
  sheet.text(Canvas::fit(task.name, room), kGap, kGap);
  const PreparedTransform transform(task.transform, format);
  std::vector<std::uint8_t> image(std::size_t(format.bytes())), scratch;
  for (int r = 0; r < rows; ++r) {
    const int top = kLine + kGap + r * (cell + kLine);
    const std::int32_t c = task.classes[std::size_t(r)];
    sheet.text(Canvas::fit(cat(task.head_labels[std::size_t(r)], ": ", data.class_name(c)), room), kGap, top + 2);
    int column = 0;
    for (std::int64_t i = 0; i < task.train.size() && column < columns; ++i) {
      const std::int64_t index = task.train.indices[std::size_t(i)];
      if (data.label(task.train.split, index) != c) continue;
      data.image(task.train.split, index, format, image.data());
      transform.apply(image.data(), std::uint64_t(index) * 2, scratch);
      sheet.draw({image.data(), format.channels, format.size, format.size}, kGap + column++ * cell, top + kLine, scale);
    }
  }
  return sheet;
}

}  // namespace eg
