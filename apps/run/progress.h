// apps/run/progress.h - what a run is doing, live: one line that is rewritten on a terminal, plain lines now and then
// elsewhere.
#pragma once
#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>

namespace eg {

struct ProgressState {
  std::string what;       // "arrow, seed 2"
  std::int64_t task = 0;  // from 1; 0: not shown
  std::int64_t tasks = 0;
  std::int64_t epoch = 0;  // from 1; 0: not shown
  std::int64_t epochs = 0;
  double loss = -1.0;      // negative: not shown
  double accuracy = -1.0;  // 0..1; negative: not shown
  double images_per_second = -1.0;
  double done = 0.0;  // share of the whole command, 0..1: what the time left is computed from
};

class Progress {
 public:
  using Clock = std::chrono::steady_clock;
  /// Writes to `out`. On a terminal the line is rewritten at most ten times a second; elsewhere a plain line appears at
  /// most every `interval`. A change of `what` or `task` shows at once.
  Progress(std::ostream& out, bool terminal, std::chrono::milliseconds interval = std::chrono::seconds(10));
  /// stderr, as a terminal when it is one.
  static Progress standard();
  /// Shows nothing: for ranks that leave it to the first one.
  static Progress silent();
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(const ProgressState& state) { update(state, Clock::now()); }
  void update(const ProgressState& state, Clock::time_point now);
  /// A line that stays (a finished task, a warning), above the live line.
  void note(const std::string& line);
  /// Takes the live line off the terminal.
  void clear();

 private:
  std::ostream& out_;
  bool terminal_;
  std::chrono::milliseconds interval_;
  Clock::time_point started_{}, shown_{};
  double done_at_start_ = 0.0;
  bool running_ = false, line_shown_ = false;
  std::string last_what_;
  std::int64_t last_task_ = -1;
};

/// "adamw, seed 1 | task 3/20 | epoch 2/10 | loss 1.234 | acc 45.6% | 1234 images/s | 3 min 12 s left"; seconds_left <
/// 0 leaves the time out.
std::string progress_line(const ProgressState& state, double seconds_left);
/// "45 s", "3 min 12 s", "2 h 05 min".
std::string duration_text(double seconds);

}  // namespace eg
