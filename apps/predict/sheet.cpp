// apps/predict/sheet.cpp - see sheet.h.
#include "apps/predict/sheet.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "apps/report/chart.h"
#include "apps/run/table.h"
#include "engine/error.h"

#if EVERGRAD_HAVE_CAIRO

#include "apps/report/drawing.h"

namespace eg {
namespace {

constexpr double kMargin = 32, kGap = 12, kLabel = 18, kBig = 168, kHead = 34, kFoot = 92, kRowGap = 30;
constexpr double kBarLine = 19;
constexpr Colour kInk{0.13, 0.14, 0.17}, kQuiet{0.45, 0.47, 0.51}, kRule{0.87, 0.88, 0.90}, kBar{0.16, 0.44, 0.64};

/// Dark violet over red and orange to pale yellow: lightness grows with the value, so that it also reads in grey.
Colour heat(double v) {
  static constexpr std::array<Colour, 6> stops{{{0.05, 0.03, 0.17},
                                                {0.31, 0.07, 0.43},
                                                {0.63, 0.16, 0.42},
                                                {0.90, 0.35, 0.27},
                                                {0.98, 0.64, 0.17},
                                                {0.99, 0.96, 0.66}}};
  const double at = std::clamp(v, 0.0, 1.0) * double(stops.size() - 1);
  const auto i = std::min(std::size_t(at), stops.size() - 2);
  const double f = at - double(i);
  const auto mix = [&](double a, double b) { return a + (b - a) * f; };
  return {mix(stops[i].r, stops[i + 1].r), mix(stops[i].g, stops[i + 1].g), mix(stops[i].b, stops[i + 1].b)};
}

/// A value between the centres of a side x side grid; x and y run from 0 to 1. Weights follow 3 f^2 - 2 f^3, whose slope
/// is 0 at the centres: straight lines would turn a single bright patch into a star.
template <class At>
double between(int side, double x, double y, const At& at) {
  const double px = std::clamp(x * side - 0.5, 0.0, double(side - 1)),
               py = std::clamp(y * side - 0.5, 0.0, double(side - 1));
  const int x0 = int(px), y0 = int(py), x1 = std::min(x0 + 1, side - 1), y1 = std::min(y0 + 1, side - 1);
  const auto smooth = [](double f) { return f * f * (3 - 2 * f); };
  const double fx = smooth(px - x0), fy = smooth(py - y0);
  return (at(x0, y0) * (1 - fx) + at(x1, y0) * fx) * (1 - fy) + (at(x0, y1) * (1 - fx) + at(x1, y1) * fx) * fy;
}

class Painter {
 public:
  Painter(const Drawing& page, const Sheet& sheet) : page_(page), sheet_(sheet) {}

  /// Attention that is spread evenly is no finding: its colours end at three times the even share at least, so that it
  /// stays dark, and a map that is nearly flat does not look like one that is not.
  double top_of(const std::vector<double>& attention) const {
    return std::max(*std::max_element(attention.begin(), attention.end()), 3.0 / double(sheet_.tokens));
  }

  /// The image, and over it the map, when there is one, with colours from 0 to `largest`.
  void panel(const SheetRow& row, const std::vector<double>* map, double largest, double left, double top,
             double size) const {
    const int pixels = int(size * sheet_.scale);
    cairo_surface_t* const s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, pixels, pixels);
    check(cairo_surface_status(s) == CAIRO_STATUS_SUCCESS, Kind::memory,
          [] { return std::string("there is no memory for a panel of the attention sheet"); });
    unsigned char* const out = cairo_image_surface_get_data(s);
    const int stride = cairo_image_surface_get_stride(s);
    for (int y = 0; y < pixels; ++y)
      for (int x = 0; x < pixels; ++x) {
        const double u = (x + 0.5) / pixels, v = (y + 0.5) / pixels;
        Colour c = colour_at(row, u, v);
        if (map) {
          const double m = largest > 0.0
                               ? between(sheet_.grid, u, v,
                                         [&](int i, int j) {
                                           return (*map)[std::size_t(j) * std::size_t(sheet_.grid) + std::size_t(i)];
                                         }) /
                                     largest
                               : 0.0;
          c = overlaid(c, m);
        }
        std::uint32_t word = 0;
        for (const double part : {c.r, c.g, c.b})
          word = word << 8 | std::uint32_t(std::lround(255 * std::clamp(part, 0.0, 1.0)));
        *reinterpret_cast<std::uint32_t*>(out + std::ptrdiff_t(y) * stride + std::ptrdiff_t(x) * 4) = word;
      }
    cairo_surface_mark_dirty(s);
    cairo_t* const c = page_.get();
    cairo_save(c);
    rounded(left, top, size), cairo_clip(c);
    cairo_translate(c, left, top), cairo_scale(c, 1.0 / sheet_.scale, 1.0 / sheet_.scale);
    cairo_set_source_surface(c, s, 0, 0);
    cairo_paint(c);
    cairo_restore(c);
    cairo_surface_destroy(s);
  }

  void label(double left, double top, double width, const std::string& text, const std::string& right = {}) const {
    page_.font(11.5, true), page_.colour(kInk);
    page_.text(left, top + 12, fitted(text, width - (right.empty() ? 0 : page_.width(right) + 6)), 0);
    if (right.empty()) return;
    page_.font(10.5), page_.colour(kQuiet);
    page_.text(left + width, top + 12, right, 1);
  }

  void bars(const SheetRow& row, double left, double top, double width) const {
    const std::size_t shown = std::min<std::size_t>(row.top.size(), 3);
    for (std::size_t i = 0; i < shown; ++i) {
      const double y = top + kBarLine * double(i);
      const auto& [name, p] = row.top[i];
      page_.colour({0.93, 0.94, 0.95});
      cairo_rectangle(page_.get(), left, y, width, 15), cairo_fill(page_.get());
      page_.colour(kBar, i == 0 ? 0.85 : 0.35);
      cairo_rectangle(page_.get(), left, y, std::max(1.5, width * p), 15), cairo_fill(page_.get());
      page_.font(10.5, i == 0);
      const std::string percent = fixed(100 * p, p < 0.1 ? 1 : 0) + "%";
      // White where the bar lies under the text, ink beyond it.
      for (const bool inside : {true, false}) {
        cairo_save(page_.get());
        const double edge = i == 0 ? std::max(1.5, width * p) : 0;
        cairo_rectangle(page_.get(), inside ? left : left + edge, y, inside ? edge : width - edge, 15);
        cairo_clip(page_.get());
        page_.colour(inside ? Colour{1, 1, 1} : kInk);
        page_.text(left + 6, y + 11.2, fitted(name, width - 48), 0);
        page_.text(left + width - 5, y + 11.2, percent, 1);
        cairo_restore(page_.get());
      }
    }
  }

  void scale_bar(double left, double top, double width) const {
    cairo_t* const c = page_.get();
    cairo_pattern_t* const g = cairo_pattern_create_linear(left, 0, left + width, 0);
    for (int i = 0; i <= 32; ++i) {
      const Colour h = heat(i / 32.0);
      cairo_pattern_add_color_stop_rgb(g, i / 32.0, h.r, h.g, h.b);
    }
    cairo_rectangle(c, left, top, width, 10);
    cairo_set_source(c, g), cairo_fill(c);
    cairo_pattern_destroy(g);
    page_.font(10.5), page_.colour(kQuiet);
    page_.text(left, top + 23, "0", 0), page_.text(left + width, top + 23, "the largest", 1);
  }

  std::string fitted(std::string text, double width) const {
    if (page_.width(text) <= width) return text;
    while (!text.empty() && page_.width(text + "…") > width) {
      while (text.size() > 1 && (std::uint8_t(text.back()) & 0xc0) == 0x80) text.pop_back();  // a whole UTF-8 character
      text.pop_back();
    }
    return text + "…";
  }

 private:
  /// Small images keep their pixels: that is what the network gets.
  Colour colour_at(const SheetRow& row, double u, double v) const {
    const int side = sheet_.format.size;
    const bool crisp = side <= kBig / 2;
    const auto channel = [&](int c) {
      const std::uint8_t* const plane =
          row.pixels.data() + (c < sheet_.format.channels ? std::size_t(c) * std::size_t(side) * std::size_t(side) : 0);
      if (crisp) return plane[int(v * side) * side + int(u * side)] / 255.0;
      return between(side, u, v, [&](int i, int j) { return plane[j * side + i] / 255.0; });
    };
    return {channel(0), channel(1), channel(2)};
  }
  /// Where nothing is looked at the image shows through, grey and dark; what is looked at glows.
  static Colour overlaid(Colour c, double m) {
    const double grey = 0.55 * (0.299 * c.r + 0.587 * c.g + 0.114 * c.b) + 0.06,
                 share = 0.30 + 0.55 * std::sqrt(std::max(0.0, m));
    const Colour h = heat(m);
    const auto mix = [&](double a, double b) { return a * (1 - share) + b * share; };
    return {mix(grey, h.r), mix(grey, h.g), mix(grey, h.b)};
  }
  void rounded(double x, double y, double size) const {
    constexpr double r = 5, kHalf = 3.14159265358979323846 / 2;
    cairo_t* const c = page_.get();
    cairo_new_sub_path(c);
    cairo_arc(c, x + size - r, y + r, r, -kHalf, 0), cairo_arc(c, x + size - r, y + size - r, r, 0, kHalf);
    cairo_arc(c, x + r, y + size - r, r, kHalf, 2 * kHalf), cairo_arc(c, x + r, y + r, r, 2 * kHalf, 3 * kHalf);
    cairo_close_path(c);
  }
  const Drawing& page_;
  const Sheet& sheet_;
};

/// How the heads of a row are arranged: up to four side by side, more in two or three lines of smaller panels.
struct HeadGrid {
  int columns = 1, lines = 1;
  double size = kBig;
  explicit HeadGrid(std::size_t heads) {
    lines = heads <= 4 ? 1 : heads <= 16 ? 2 : 3;
    columns = int((heads + std::size_t(lines) - 1) / std::size_t(lines));
    const double room = kBig + 3 * kBarLine + kGap;  // the height of the picture with its bars
    size = lines == 1 ? kBig : std::floor((room - (lines - 1) * kGap - (lines - 1) * kLabel) / lines);
  }
  double width() const { return columns * size + (columns - 1) * kGap; }
};

}  // namespace

void write_sheet(const std::filesystem::path& path, const Sheet& sheet) {
  check(!sheet.rows.empty(), Kind::usage, [] { return std::string("an attention sheet needs an image"); });
  const HeadGrid grid(sheet.rows[0].heads.size());
  const double row_height = kLabel + kBig + kGap + 3 * kBarLine + kRowGap;
  const double top = kMargin + kHead + 30, heads_left = kMargin + 3 * (kBig + kGap) + kGap;
  const double width = std::max(heads_left + grid.width() + kMargin, 760.0);
  const double height = top + row_height * double(sheet.rows.size()) + kFoot;
  check(height * sheet.scale <= 32000 && width * sheet.scale <= 32000, Kind::usage, [&] {
    return cat("an attention sheet of ", sheet.rows.size(), " images would be ", int(height * sheet.scale),
               " pixels tall, and 32000 is the most; give fewer images at a time");
  });
  const Drawing page(width, height, sheet.scale);
  const Painter paint(page, sheet);
  page.colour(kInk), page.font(20, true);
  page.text(kMargin, kMargin + 16, paint.fitted(sheet.title, width - 2 * kMargin), 0);
  page.colour(kQuiet), page.font(12);
  page.text(kMargin, kMargin + 36, paint.fitted(sheet.subtitle, width - 2 * kMargin), 0);
  for (std::size_t r = 0; r < sheet.rows.size(); ++r) {
    const SheetRow& row = sheet.rows[r];
    const double y = top + row_height * double(r);
    page.colour(kRule), cairo_set_line_width(page.get(), 1);
    cairo_move_to(page.get(), kMargin, y - 12), cairo_line_to(page.get(), width - kMargin, y - 12),
        cairo_stroke(page.get());
    const auto left = [&](int column) { return kMargin + column * (kBig + kGap); };
    paint.label(left(0), y, kBig, row.name, row.verdict);
    paint.panel(row, nullptr, 0.0, left(0), y + kLabel, kBig);
    paint.bars(row, left(0), y + kLabel + kBig + kGap, kBig);
    paint.label(left(1), y, kBig, "attention rollout");
    paint.panel(row, &row.rollout, paint.top_of(row.rollout), left(1), y + kLabel, kBig);
    paint.label(left(2), y, kBig, row.top.empty() ? "why" : "why " + row.top[0].first);
    const double most = *std::max_element(row.relevance.begin(), row.relevance.end());
    paint.panel(row, &row.relevance, most, left(2), y + kLabel, kBig);
    for (std::size_t h = 0; h < row.heads.size(); ++h) {
      const double x = heads_left + double(int(h) % grid.columns) * (grid.size + kGap);
      const double t = y + double(int(h) / grid.columns) * (grid.size + kLabel + kGap);
      paint.label(x, t, grid.size, cat("head ", h),
                  fixed(100 * *std::max_element(row.heads[h].begin(), row.heads[h].end()), 1) + "%");
      paint.panel(row, &row.heads[h], paint.top_of(row.heads[h]), x, t + kLabel, grid.size);
    }
  }
  const double foot = height - kFoot + 4;
  page.colour(kRule), cairo_move_to(page.get(), kMargin, foot - 12),
      cairo_line_to(page.get(), width - kMargin, foot - 12);
  cairo_stroke(page.get());
  paint.scale_bar(kMargin, foot + 6, kBig);
  page.font(11), page.colour(kQuiet);
  const std::array<std::string, 4> lines{
      cat("head h: where ", sheet.from, " looks in block ", sheet.block,
          "; at the right its largest share on one patch "
          "(evenly spread: ",
          fixed(100.0 / double(sheet.tokens), 1), "%)"),
      "attention rollout: the mean over heads, followed through all blocks (Abnar and Zuidema 2020)",
      "why: attention times the gradient of that class's logit, through all blocks (Chefer, Gur and Wolf 2021)",
      "Colours are interpolated between the centres of the patches; those of heads and rollout end at no less than "
      "three even shares."};
  for (std::size_t i = 0; i < lines.size(); ++i)
    page.text(kMargin + kBig + 2 * kGap, foot + 8 + 16 * double(i),
              paint.fitted(lines[i], width - 2 * kMargin - kBig - 2 * kGap), 0);
  page.save(path);
}

}  // namespace eg

#else

namespace eg {

void write_sheet(const std::filesystem::path&, const Sheet&) { fail(Kind::usage, why_no_charts()); }

}  // namespace eg

#endif
