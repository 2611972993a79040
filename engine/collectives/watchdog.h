// engine/collectives/watchdog.h - ends a run that cannot go on, says why, and never hangs.
//
// A thread beside the training. It makes no device calls (a hung device would hang it too): it beats, listens to the others
// over a connection of its own, and asks Heartbeat for a verdict. After one it tells the store, writes the flight recorder to
// standard error and to RUN/flight-rank-N.json, waits a moment for the others to do the same, and ends the process.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <thread>

#include "engine/collectives/collectives.h"
#include "engine/collectives/heartbeat.h"
#include "engine/collectives/store.h"

namespace eg {

/// Exit code of a process whose run another rank has ended, or that was itself late: start the job again, with --resume.
inline constexpr int kLostRankExitCode = 75;

struct WatchOptions {
  double step_deadline = 0.0;        // seconds; 0: the larger of 60 s and 20 medians of the last 63 step times
  std::filesystem::path run_folder;  // gets flight-rank-N.json; empty: none is written
  /// How many of the device's collectives are complete: a counter in host memory that the device writes. None: a collective
  /// is complete when its call returns.
  std::function<std::uint64_t()> device_progress;
  /// Called on the watchdog's thread instead of ending the process (tests).
  std::function<void(const std::string& why)> on_failure;
};

class Watchdog {
 public:
  /// `line`: a way into the store that nobody else uses (Store::second()). Starts the thread.
  Watchdog(std::unique_ptr<Store> line, WatchOptions options);
  /// Says that this rank leaves in good order; while an exception is on its way, that it failed, and writes the recorder.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  FlightRecorder& recorder() { return recorder_; }
  /// A training step has ended (its times set the default deadline). Ends what busy() began.
  void step();
  /// What this rank does outside of steps while others may wait for it: they then do for ten deadlines. Empty: a step again.
  void busy(const std::string& what);
  /// Where flight records go from now on.
  void write_into(const std::filesystem::path& run_folder);
  /// This rank ends with an error: the others hear why, all write their recorders, and the watch is over. Before write_into(),
  /// when nothing has begun, only the last.
  void failed(const std::string& why) noexcept;
  double deadline() const;  // seconds

  /// What is called between these two is being captured into a graph, not run; returns how many collectives that was.
  void capture_begins();
  std::uint64_t capture_ends();
  /// The captured step runs once more.
  void replayed(std::uint64_t collectives);

  /// Called when a collective has thrown: the watchdog most often knows more, so it gets a moment to end the process itself.
  void explain() noexcept;

 private:
  friend class WatchedCollectives;
  std::uint64_t enter(const std::string& name, std::int64_t bytes, bool on_device);
  void done(std::uint64_t sequence, bool on_device);
  void wait_for_others();
  void watch();
  void look();
  void say(bool left);
  void end(const std::string& why);
  void stop_watching();
  void write_recorder(const std::string& why) noexcept;
  bool asynchronous() const { return bool(options_.device_progress); }
  double now() const;

  const std::unique_ptr<Store> line_;
  WatchOptions options_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  FlightRecorder recorder_;
  Heartbeat heard_;
  Beat mine_;
  std::string busy_;
  std::atomic<bool> capturing_{false};
  std::uint64_t captured_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  struct OnDevice {
    std::uint64_t count, sequence;  // complete when the device has done `count`
  };
  std::deque<OnDevice> on_device_;  // in order
  std::uint64_t device_entered_ = 0;
  std::deque<double> step_times_;
  double last_step_ = -1.0, last_look_ = 0.0;
  bool stop_ = false, over_ = false;
  std::thread thread_;
};

/// `inner`, with every collective entered into the watchdog's recorder. The watchdog must outlive it.
std::unique_ptr<Collectives> watched(std::unique_ptr<Collectives> inner, Watchdog& watchdog);
/// The watchdog of what watched() returned, null for all others.
Watchdog* watchdog_of(Collectives& ranks);

}  // namespace eg
