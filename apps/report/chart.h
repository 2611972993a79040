// apps/report/chart.h - line charts as PNG files, for reports and the README.
#pragma once
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace eg {

/// One line. lo and hi, when given, are a band around it (a spread over seeds). All lists have the length of xs. A
/// value that is not finite leaves a gap.
struct ChartSeries {
  std::string name;
  std::vector<double> xs, ys;
  std::vector<double> lo, hi;
};

struct ChartOptions {
  bool percent = false;                                     // label the y axis in percent: 0.25 stands as 25%
  bool whole_x = false;                                     // ticks of the x axis at whole numbers only
  double y_min = std::numeric_limits<double>::quiet_NaN();  // NaN: from the data
  double y_max = std::numeric_limits<double>::quiet_NaN();
};

/// Empty when charts can be drawn, otherwise a sentence that says why not and what to install.
std::string why_no_charts();

/// Draws the series into a PNG of 1760 x 1000 pixels, with the colour-blind-safe palette of Okabe and Ito (2008) and a
/// marker shape for each line. Written atomically. Throws Error{usage} for lists of different lengths, no series, or
/// when why_no_charts() is not empty; Error{io} when the file cannot be written.
void write_line_chart(const std::filesystem::path& path, const std::string& title, const std::string& x_label,
                      const std::string& y_label, const std::vector<ChartSeries>& series,
                      const ChartOptions& options = {});

}  // namespace eg
