// data/preview.h - a contact sheet: rows of labelled images as one PNG.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/stream.h"

namespace eg {

/// Interleaved RGB pixels that text and images are drawn on.
class Canvas {
 public:
  Canvas(int width, int height, std::uint8_t background = 24);
  int width() const { return width_; }
  int height() const { return height_; }
  void draw(const Image& image, int left, int top, int scale);
  /// One line of ASCII in a small bitmap font, 12 pixels high; any other character becomes one '?'. Returns its width.
  int text(const std::string& line, int left, int top);
  /// Made ASCII as text() does, and cut to max_width pixels with ".." if needed.
  static std::string fit(std::string line, int max_width);
  const std::vector<std::uint8_t>& pixels() const { return pixels_; }
  /// The bytes of a PNG file.
  std::string png() const;
  /// Atomic: the file is complete or not there. Throws Error{io}.
  void write_png(const std::filesystem::path& path) const;

 private:
  int width_, height_;
  std::vector<std::uint8_t> pixels_;
};

/// One row per class of the task (at most max_rows), `columns` images each, the class name above each row.
Canvas contact_sheet(const Dataset& data, const Task& task, ImageFormat format, int columns = 10, int max_rows = 12);

}  // namespace eg
