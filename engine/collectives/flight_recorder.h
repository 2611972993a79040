// engine/collectives/flight_recorder.h - the last 64 collectives of a rank, for the day on which one does not come back.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace eg {

/// One collective, or the `count` of them in one replay of a captured step.
struct FlightEntry {
  std::uint64_t sequence = 0;  // of the last of them, counted from 1
  std::uint64_t count = 1;
  std::string name;  // "all_reduce f32", "step graph"
  std::int64_t bytes = 0;
  double enqueued = 0.0, completed = -1.0;  // seconds since the recorder was made; completed < 0: not yet
};

/// Where a rank is: what it entered last, and what it waits for.
struct FlightPosition {
  std::uint64_t entered = 0, done = 0;  // sequence numbers
  std::string name;                     // of the oldest that is not done, else of the last
  std::int64_t bytes = 0;
  double waiting = 0.0;  // seconds that the oldest has been outstanding; 0: nothing is
};

/// Safe for one thread that enqueues and one that looks. Costs a lock and no allocation to speak of per collective.
class FlightRecorder {
 public:
  static constexpr std::size_t kKept = 64;

  /// Enters `count` collectives; returns the sequence number of the last.
  std::uint64_t enqueue(const std::string& name, std::int64_t bytes, std::uint64_t count = 1);
  /// That entry is complete. What fell out of the ring counts as complete.
  void complete(std::uint64_t sequence);
  FlightPosition position() const;
  /// Oldest first.
  std::vector<FlightEntry> entries() const;
  /// A table for people: "#17 all_reduce f32  4.0 MiB  enqueued 12.031 s  NOT COMPLETE for 9.9 s".
  std::string text() const;
  /// The entries as a JSON array.
  std::string json() const;

 private:
  double now() const;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  mutable std::mutex mutex_;
  std::array<FlightEntry, kKept> ring_;
  std::size_t filled_ = 0, next_ = 0;
  std::uint64_t entered_ = 0;
};

}  // namespace eg
