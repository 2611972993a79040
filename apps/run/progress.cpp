// apps/run/progress.cpp - the progress line.
#include "apps/run/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

namespace eg {
namespace {

std::string formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::size_t terminal_width() {
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 10;
  return known ? size.ws_col : 80;
}

}  // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto s = static_cast<long long>(std::min(std::llround(std::min(seconds, 1e15)), 1'000'000'000'000LL));
  char text[64];
  if (s < 60) {
    std::snprintf(text, sizeof text, "%lld s", s);
  } else if (s < 3600) {
    std::snprintf(text, sizeof text, "%lld min %02lld s", s / 60, s % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld h %02lld min", s / 3600, s / 60 % 60);
  }
  return text;
}

std::string progress_line(const ProgressState& s, double seconds_left) {
  std::string line = s.what;
  const auto add = [&](const std::string& part) { line += (line.empty() ? "" : " | ") + part; };
  if (s.task > 0) add("task " + std::to_string(s.task) + "/" + std::to_string(s.tasks));
  if (s.epoch > 0) add("epoch " + std::to_string(s.epoch) + "/" + std::to_string(s.epochs));
  if (!(s.loss < 0)) add("loss " + formatted("%.4g", s.loss));  // a NaN loss is shown
  if (!(s.accuracy < 0)) add("acc " + formatted("%.1f%%", 100 * s.accuracy));
  if (s.images_per_second >= 0) add(formatted("%.0f images/s", s.images_per_second));
  if (seconds_left >= 0) add(duration_text(seconds_left) + " left");
  return line;
}

Progress::Progress(std::ostream& out, bool terminal, std::chrono::milliseconds interval)
    : out_(out), terminal_(terminal), interval_(terminal ? std::chrono::milliseconds(100) : interval) {}

Progress Progress::standard() { return {std::cerr, ::isatty(STDERR_FILENO) == 1}; }

Progress Progress::silent() {
  static std::ostream nowhere(nullptr);
  return {nowhere, false};
}

void Progress::update(const ProgressState& state, Clock::time_point now) {
  if (!running_) started_ = now, done_at_start_ = state.done, shown_ = now - interval_, running_ = true;
  const bool new_part = state.what != last_what_ || state.task != last_task_;
  if (now - shown_ < interval_ && !new_part) return;
  shown_ = now, last_what_ = state.what, last_task_ = state.task;
  // A resumed run starts at some share done; only what this process did tells its speed.
  const double elapsed = std::chrono::duration<double>(now - started_).count();
  const double fresh = state.done - done_at_start_;
  const double left = fresh > 0 && elapsed > 0 ? elapsed * (1.0 - state.done) / fresh : -1.0;
  std::string line = progress_line(state, left);
  if (!terminal_) {
    out_ << line << '\n' << std::flush;
    return;
  }
  const std::size_t width = terminal_width() - 1;
  if (line.size() > width) line.resize(width);
  out_ << '\r' << line << "\x1b[K" << std::flush;
  line_shown_ = true;
}

void Progress::note(const std::string& line) {
  clear();
  out_ << line << '\n' << std::flush;
}

void Progress::clear() {
  if (line_shown_) out_ << "\r\x1b[K" << std::flush;
  line_shown_ = false;
}

}  // namespace eg
