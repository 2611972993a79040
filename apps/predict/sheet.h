// apps/predict/sheet.h - what a network looks at, as one picture.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/dataset.h"

namespace eg {

/// One row of the sheet. Every map has grid x grid values, one per patch, row by row.
struct SheetRow {
  std::string name, verdict;                        // what stands above the image, left and right
  std::vector<std::uint8_t> pixels;                 // planar, as the network saw it
  std::vector<std::pair<std::string, double>> top;  // class and probability, likeliest first
  std::vector<std::vector<double>> heads;
  std::vector<double> rollout, relevance;
};
struct Sheet {
  std::string title, subtitle;
  std::string from;         // what attention goes from: "the class token", "the mean of the patches"
  int block = 0;            // whose heads are shown
  std::int64_t tokens = 0;  // of the network, prefix and patches: an even share of attention is one of them
  int grid = 8;             // patches along a side
  int scale = 2;            // pixels of the PNG per unit of the drawing, along a side
  ImageFormat format;
  std::vector<SheetRow> rows;
};

/// Draws the sheet as a PNG: by image the picture with its likeliest classes, rollout, relevance, and every head of one
/// block, laid over the image; a map's colours go from 0 to its own largest value. Written atomically. Throws
/// Error{usage} when why_no_charts() (apps/report/chart.h) is not empty or the sheet would be too tall, Error{io}.
void write_sheet(const std::filesystem::path& path, const Sheet& sheet);

}  // namespace eg
