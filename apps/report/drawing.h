// apps/report/drawing.h - a page that cairo draws on, saved as a PNG. For files that are compiled with cairo only.
#pragma once
#include <cairo.h>

#include <filesystem>
#include <memory>
#include <string>

namespace eg {

struct Colour {
  double r, g, b;
};

class Drawing {
 public:
  /// A white page of width x height units, `scale` pixels each. Throws Error{memory} when cairo has no room for it.
  Drawing(double width, double height, double scale);
  cairo_t* get() const { return cairo_.get(); }

  void font(double size, bool bold = false) const;
  /// Of a text in the present font.
  double width(const std::string& text) const;
  /// `align`: 0 begins at x, 0.5 is centred there, 1 ends there; y is the baseline.
  void text(double x, double y, const std::string& text, double align) const;
  void colour(Colour c, double alpha = 1) const { cairo_set_source_rgba(get(), c.r, c.g, c.b, alpha); }

  /// Written atomically. Throws Error{io}.
  void save(const std::filesystem::path& path) const;

 private:
  std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface_;
  std::unique_ptr<cairo_t, decltype(&cairo_destroy)> cairo_;
};

}  // namespace eg
