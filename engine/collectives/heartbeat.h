// engine/collectives/heartbeat.h - what ranks hear of each other while they run, and what follows from it.
//
// Every rank says a few times per deadline where it is: which collective it entered last, which are done, how long it has
// waited. From that alone each can tell a dead rank from a stopped one, a stopped one from a late one, and a late one from
// ranks that took different paths. No clocks are compared: silence is measured on the listener's own.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "engine/collectives/flight_recorder.h"

namespace eg {

struct Beat {
  std::uint64_t number = 0;  // grows with every beat
  bool left = false;         // the last beat of a rank that ended as it should
  FlightPosition position;
  std::string who;   // "pid 12 on host x"
  std::string busy;  // with what, outside of steps ("saving a checkpoint"), or empty
};
std::string to_text(const Beat& beat);
/// Nothing when the text is not a beat.
std::optional<Beat> beat_from(const std::string& text);

/// The beats of all ranks as one of them hears them.
class Heartbeat {
 public:
  /// now: seconds of the listener's clock. Ranks count as heard at that moment.
  Heartbeat(int me, int size, double now);
  void hear(int rank, const Beat& beat, double now);

  /// Why this run cannot go on, or nothing. `deadline` in seconds: a collective that is outstanding for 7/8 of it is a
  /// failure, silence of half of it is (a heartbeat comes 20 times per deadline). The text names the ranks at fault:
  /// - stopped: silent, for which nothing but the process or its host can be the cause;
  /// - gone: it left in good order while this rank still waits for it;
  /// - split: two ranks wait at the same place in different collectives;
  /// - late: it beats, but has not entered the collective for which this rank waits (ten deadlines while it says that it is busy
  ///   with something else than a step);
  /// - none: all have entered it, so network or device hang.
  std::optional<std::string> verdict(double deadline, double now) const;

 private:
  struct Heard {
    Beat beat;
    double changed = 0.0;
    bool any = false;
  };
  std::optional<std::string> silent(double deadline, double now) const;
  std::optional<std::string> split() const;
  std::optional<std::string> stuck(double deadline, double now) const;
  int me_;
  std::vector<Heard> ranks_;
};

}  // namespace eg
