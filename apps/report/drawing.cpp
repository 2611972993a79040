// apps/report/drawing.cpp - see drawing.h; empty without cairo.
#if EVERGRAD_HAVE_CAIRO

#include "apps/report/drawing.h"

#include <exception>
#include <span>

#include "engine/error.h"
#include "engine/file.h"

// The font library keeps its cache until the process ends; a leak checker must not take that for a leak of ours.
#if defined(__SANITIZE_ADDRESS__)
#define EVERGRAD_LEAK_CHECK 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EVERGRAD_LEAK_CHECK 1
#endif
#endif
#if defined(EVERGRAD_LEAK_CHECK)
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libfontconfig\n"; }
#endif

namespace eg {

Drawing::Drawing(double width, double height, double scale)
    : surface_(cairo_image_surface_create(CAIRO_FORMAT_RGB24, int(width * scale), int(height * scale)),
               cairo_surface_destroy),
      cairo_(cairo_create(surface_.get()), cairo_destroy) {
  check(cairo_status(cairo_.get()) == CAIRO_STATUS_SUCCESS, Kind::memory, [&] {
    return cat("cannot draw a picture of ", int(width * scale), " x ", int(height * scale),
               " pixels: ", cairo_status_to_string(cairo_status(cairo_.get())));
  });
  cairo_scale(cairo_.get(), scale, scale);
  cairo_set_source_rgb(cairo_.get(), 1, 1, 1);
  cairo_paint(cairo_.get());
}

void Drawing::font(double size, bool bold) const {
  cairo_select_font_face(get(), "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                         bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(get(), size);
}

double Drawing::width(const std::string& text) const {
  cairo_text_extents_t extents{};
  cairo_text_extents(get(), text.c_str(), &extents);
  return extents.x_advance;
}

void Drawing::text(double x, double y, const std::string& text, double align) const {
  cairo_move_to(get(), x - align * width(text), y);
  cairo_show_text(get(), text.c_str());
}

void Drawing::save(const std::filesystem::path& path) const {
  AtomicFile file(path);
  struct Sink {
    AtomicFile* file;
    std::exception_ptr error;
  } sink{&file, nullptr};
  // No exception may pass through cairo's C code.
  const auto write = [](void* to, const unsigned char* bytes, unsigned count) -> cairo_status_t {
    auto* s = static_cast<Sink*>(to);
    try {
      s->file->write(std::as_bytes(std::span(bytes, count)));
      return CAIRO_STATUS_SUCCESS;
    } catch (...) {
      s->error = std::current_exception();
      return CAIRO_STATUS_WRITE_ERROR;
    }
  };
  const cairo_status_t status = cairo_surface_write_to_png_stream(surface_.get(), write, &sink);
  if (sink.error) std::rethrow_exception(sink.error);
  check(status == CAIRO_STATUS_SUCCESS, Kind::io,
        [&] { return cat("cannot write ", path.string(), ": ", cairo_status_to_string(status)); });
  file.commit();
}

}  // namespace eg

#endif
