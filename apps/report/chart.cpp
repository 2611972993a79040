// apps/report/chart.cpp - line charts through cairo, which is optional.
#include "apps/report/chart.h"

#include "engine/error.h"

#if EVERGRAD_HAVE_CAIRO

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "apps/report/drawing.h"

namespace eg {
namespace {

constexpr double kWidth = 880, kHeight = 500, kScale = 2;
constexpr double kLeft = 76, kTop = 52, kBottom = 60, kMargin = 20;
constexpr double kPi = 3.14159265358979323846;

// Okabe and Ito, "Color Universal Design" (2008); yellow comes last, because it is pale on white.
constexpr std::array<Colour, 8> kPalette{{{0.000, 0.447, 0.698},
                                          {0.835, 0.369, 0.000},
                                          {0.000, 0.620, 0.451},
                                          {0.800, 0.475, 0.655},
                                          {0.337, 0.706, 0.914},
                                          {0.902, 0.624, 0.000},
                                          {0.200, 0.200, 0.200},
                                          {0.941, 0.894, 0.259}}};

struct Axis {
  double low = 0, high = 1, step = 1;
};

/// Ticks at 1, 2 or 5 times a power of ten, about `wanted` of them, around [low, high].
Axis nice_axis(double low, double high, int wanted, bool whole) {
  if (!(high > low)) {
    const double pad = std::max(std::abs(low) * 0.1, whole ? 1.0 : 1e-3);
    low -= pad, high += pad;
  }
  const double raw = (high - low) / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double m : {1.0, 2.0, 5.0})
    if (raw <= m * power * (1 + 1e-9)) {
      step = m * power;
      break;
    }
  if (whole) step = std::max(1.0, std::round(step));
  return {low, high, step};
}

std::string tick_text(double value, double step, bool percent) {
  if (percent) value *= 100, step *= 100;
  if (std::abs(value) < step * 1e-6) value = 0;
  const int decimals = std::clamp(int(std::ceil(-std::log10(step) - 1e-9)), 0, 9);
  char text[64];
  if (std::abs(value) >= 1e6 || step < 1e-9) {
    std::snprintf(text, sizeof text, "%.3g", value);
  } else {
    std::snprintf(text, sizeof text, "%.*f", decimals, value);
  }
  return percent ? std::string(text) + "%" : text;
}

struct Plot {
  double left, top, right, bottom;
  Axis x, y;
  double at_x(double v) const { return left + (v - x.low) / (x.high - x.low) * (right - left); }
  double at_y(double v) const { return bottom - (v - y.low) / (y.high - y.low) * (bottom - top); }
};

void check_series(const std::vector<ChartSeries>& series) {
  check(!series.empty(), Kind::usage, [] { return std::string("a chart needs at least one series"); });
  for (const ChartSeries& s : series) {
    const bool fits =
        s.ys.size() == s.xs.size() && s.lo.size() == s.hi.size() && (s.lo.empty() || s.lo.size() == s.xs.size());
    check(fits, Kind::usage, [&] {
      return cat("chart series ", s.name, ": ", s.xs.size(), " x values, ", s.ys.size(), " y values, ", s.lo.size(),
                 " lower and ", s.hi.size(), " upper ends of a band; the counts must be equal");
    });
  }
}

Plot make_plot(const Drawing& canvas, const std::vector<ChartSeries>& series, const ChartOptions& options) {
  double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY, legend = 0;
  bool shares = true;
  canvas.font(12);
  for (const ChartSeries& s : series) {
    legend = std::max(legend, std::min(canvas.width(s.name), 220.0));
    for (const double v : s.xs)
      if (std::isfinite(v)) x0 = std::min(x0, v), x1 = std::max(x1, v);
    for (const double v : s.ys) shares = shares && !(v < 0 || v > 1);
    for (const auto* list : {&s.ys, &s.lo, &s.hi})
      for (const double v : *list)
        if (std::isfinite(v)) y0 = std::min(y0, v), y1 = std::max(y1, v);
  }
  if (!(x0 <= x1)) x0 = 0, x1 = 1;
  if (!(y0 <= y1)) y0 = 0, y1 = 1;
  Plot plot{kLeft, kTop, kWidth - kMargin - legend - 46, kHeight - kBottom, {}, {}};
  plot.x = nice_axis(x0, x1, 10, options.whole_x);
  plot.y = nice_axis(y0, y1, 6, false);
  plot.y.low = std::floor(plot.y.low / plot.y.step + 1e-9) * plot.y.step;
  plot.y.high = std::ceil(plot.y.high / plot.y.step - 1e-9) * plot.y.step;
  // A share has no room below 0% and above 100%; a band may be cut off there.
  if (options.percent && shares) plot.y.low = std::max(plot.y.low, 0.0), plot.y.high = std::min(plot.y.high, 1.0);
  if (std::isfinite(options.y_min)) plot.y.low = options.y_min;
  if (std::isfinite(options.y_max)) plot.y.high = options.y_max;
  plot.y.step = nice_axis(plot.y.low, plot.y.high, 6, false).step;
  return plot;
}

void draw_grid(const Drawing& canvas, const Plot& plot, const ChartOptions& options) {
  cairo_t* const c = canvas.get();
  canvas.font(11);
  cairo_set_line_width(c, 1);
  const auto ticks = [](const Axis& a, auto&& draw) {
    const double first = std::ceil(a.low / a.step - 1e-9);
    for (int i = 0; i < 60 && (first + i) * a.step <= a.high + 1e-9 * a.step; ++i) draw((first + i) * a.step);
  };
  ticks(plot.y, [&](double v) {
    const double y = plot.at_y(v);
    canvas.colour({0.88, 0.88, 0.88});
    cairo_move_to(c, plot.left, y), cairo_line_to(c, plot.right, y), cairo_stroke(c);
    canvas.colour({0.25, 0.25, 0.25});
    canvas.text(plot.left - 8, y + 4, tick_text(v, plot.y.step, options.percent), 1);
  });
  ticks(plot.x, [&](double v) {
    const double x = plot.at_x(v);
    canvas.colour({0.94, 0.94, 0.94});
    cairo_move_to(c, x, plot.top), cairo_line_to(c, x, plot.bottom), cairo_stroke(c);
    canvas.colour({0.25, 0.25, 0.25});
    canvas.text(x, plot.bottom + 18, tick_text(v, plot.x.step, false), 0.5);
  });
  canvas.colour({0.35, 0.35, 0.35});
  cairo_move_to(c, plot.left, plot.top), cairo_line_to(c, plot.left, plot.bottom);
  cairo_line_to(c, plot.right, plot.bottom), cairo_stroke(c);
}

void draw_band(const Drawing& canvas, const Plot& plot, const ChartSeries& s, Colour colour) {
  cairo_t* const c = canvas.get();
  const auto good = [&](std::size_t i) {
    return std::isfinite(s.xs[i]) && std::isfinite(s.lo[i]) && std::isfinite(s.hi[i]);
  };
  canvas.colour(colour, 0.18);
  for (std::size_t begin = 0; begin < s.lo.size();) {
    std::size_t end = begin;
    while (end < s.lo.size() && good(end)) ++end;
    if (end > begin) {
      for (std::size_t i = begin; i < end; ++i) cairo_line_to(c, plot.at_x(s.xs[i]), plot.at_y(s.hi[i]));
      for (std::size_t i = end; i > begin; --i) cairo_line_to(c, plot.at_x(s.xs[i - 1]), plot.at_y(s.lo[i - 1]));
      cairo_close_path(c), cairo_fill(c);
    }
    begin = end + 1;
  }
}

void draw_marker(const Drawing& canvas, double x, double y, std::size_t shape) {
  cairo_t* const c = canvas.get();
  constexpr double r = 3.4;
  cairo_new_path(c);
  switch (shape % 4) {
    case 0: cairo_arc(c, x, y, r, 0, 2 * kPi); break;
    case 1: cairo_rectangle(c, x - r * 0.9, y - r * 0.9, 1.8 * r, 1.8 * r); break;
    case 2:
      cairo_move_to(c, x, y - 1.25 * r), cairo_line_to(c, x + 1.15 * r, y + 0.8 * r);
      cairo_line_to(c, x - 1.15 * r, y + 0.8 * r), cairo_close_path(c);
      break;
    default:
      cairo_move_to(c, x, y - 1.3 * r), cairo_line_to(c, x + 1.3 * r, y), cairo_line_to(c, x, y + 1.3 * r);
      cairo_line_to(c, x - 1.3 * r, y), cairo_close_path(c);
  }
  cairo_fill(c);
}

void draw_line(const Drawing& canvas, const Plot& plot, const ChartSeries& s, std::size_t index) {
  cairo_t* const c = canvas.get();
  canvas.colour(kPalette[index % kPalette.size()]);
  cairo_set_line_width(c, 2);
  cairo_set_line_join(c, CAIRO_LINE_JOIN_ROUND);
  bool drawing = false;
  cairo_new_path(c);
  for (std::size_t i = 0; i < s.xs.size(); ++i) {
    const bool good = std::isfinite(s.xs[i]) && std::isfinite(s.ys[i]);
    if (good) (drawing ? cairo_line_to : cairo_move_to)(c, plot.at_x(s.xs[i]), plot.at_y(s.ys[i]));
    drawing = good;
  }
  cairo_stroke(c);
  const std::size_t every = std::max<std::size_t>(1, s.xs.size() / 30);
  for (std::size_t i = 0; i < s.xs.size(); i += every)
    if (std::isfinite(s.xs[i]) && std::isfinite(s.ys[i]))
      draw_marker(canvas, plot.at_x(s.xs[i]), plot.at_y(s.ys[i]), index);
}

void draw_legend(const Drawing& canvas, const Plot& plot, const std::vector<ChartSeries>& series) {
  cairo_t* const c = canvas.get();
  canvas.font(12);
  for (std::size_t i = 0; i < series.size() && i < 18; ++i) {
    const double x = plot.right + 14, y = plot.top + 10 + 22 * double(i);
    canvas.colour(kPalette[i % kPalette.size()]);
    cairo_set_line_width(c, 2);
    cairo_move_to(c, x, y), cairo_line_to(c, x + 24, y), cairo_stroke(c);
    draw_marker(canvas, x + 12, y, i);
    canvas.colour({0.15, 0.15, 0.15});
    canvas.text(x + 30, y + 4, series[i].name, 0);
  }
}

}  // namespace

std::string why_no_charts() { return ""; }

void write_line_chart(const std::filesystem::path& path, const std::string& title, const std::string& x_label,
                      const std::string& y_label, const std::vector<ChartSeries>& series, const ChartOptions& options) {
  check_series(series);
  const Drawing canvas(kWidth, kHeight, kScale);
  cairo_t* const c = canvas.get();
  const Plot plot = make_plot(canvas, series, options);
  draw_grid(canvas, plot, options);

  cairo_save(c);
  cairo_rectangle(c, plot.left - 5, plot.top - 5, plot.right - plot.left + 10, plot.bottom - plot.top + 10);
  cairo_clip(c);
  for (std::size_t i = 0; i < series.size(); ++i)
    if (!series[i].lo.empty()) draw_band(canvas, plot, series[i], kPalette[i % kPalette.size()]);
  for (std::size_t i = 0; i < series.size(); ++i) draw_line(canvas, plot, series[i], i);
  cairo_restore(c);
  draw_legend(canvas, plot, series);

  canvas.colour({0.1, 0.1, 0.1});
  canvas.font(15, true);
  canvas.text(plot.left, 30, title, 0);
  canvas.font(12);
  canvas.text((plot.left + plot.right) / 2, kHeight - 16, x_label, 0.5);
  cairo_translate(c, 20, (plot.top + plot.bottom) / 2);
  cairo_rotate(c, -kPi / 2);
  canvas.text(0, 0, y_label, 0.5);
  canvas.save(path);
}

}  // namespace eg

#else

namespace eg {

std::string why_no_charts() {
  return "No chart is drawn: this build has no cairo (Debian: install libcairo2-dev and fonts-dejavu-core, then "
         "configure "
         "and build again).";
}

void write_line_chart(const std::filesystem::path&, const std::string&, const std::string&, const std::string&,
                      const std::vector<ChartSeries>&, const ChartOptions&) {
  fail(Kind::usage, why_no_charts());
}

}  // namespace eg

#endif
