// engine/collectives/flight_recorder.cpp - see flight_recorder.h.
#include "engine/collectives/flight_recorder.h"

#include <cstdio>

#include "engine/log.h"

namespace eg {

double FlightRecorder::now() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

std::uint64_t FlightRecorder::enqueue(const std::string& name, std::int64_t bytes, std::uint64_t count) {
  const std::lock_guard lock(mutex_);
  FlightEntry& e = ring_[next_];
  next_ = (next_ + 1) % kKept, filled_ = filled_ < kKept ? filled_ + 1 : kKept;
  entered_ += count;
  e.sequence = entered_, e.count = count, e.name = name, e.bytes = bytes, e.enqueued = now(), e.completed = -1.0;
  return entered_;
}

void FlightRecorder::complete(std::uint64_t sequence) {
  const std::lock_guard lock(mutex_);
  for (FlightEntry& e : ring_)
    if (e.sequence > 0 && e.sequence == sequence && e.completed < 0.0) e.completed = now();
}

std::vector<FlightEntry> FlightRecorder::entries() const {
  const std::lock_guard lock(mutex_);
  std::vector<FlightEntry> list;
  for (std::size_t i = 0; i < filled_; ++i) list.push_back(ring_[(next_ + kKept - filled_ + i) % kKept]);
  return list;
}

FlightPosition FlightRecorder::position() const {
  const auto list = entries();
  FlightPosition p;
  if (!list.empty()) p.done = list[0].sequence - list[0].count;
  for (const FlightEntry& e : list) {
    p.entered = e.sequence;
    if (p.waiting > 0.0) continue;
    p.name = e.name, p.bytes = e.bytes;
    if (e.completed < 0.0)
      p.waiting = now() - e.enqueued + 1e-9;
    else
      p.done = e.sequence;
  }
  return p;
}

std::string FlightRecorder::text() const {
  std::string out;
  const double t = now();
  for (const FlightEntry& e : entries()) {
    char line[256];
    const double mib = double(e.bytes) / (1 << 20);
    std::snprintf(line, sizeof line, "  #%-8llu %-24.60s %10.3f MiB  enqueued %10.3f s  ",
                  static_cast<unsigned long long>(e.sequence), e.name.c_str(), mib, e.enqueued);
    out += line;
    std::snprintf(line, sizeof line, e.completed < 0.0 ? "NOT COMPLETE for %.3f s\n" : "took %.3f s\n",
                  e.completed < 0.0 ? t - e.enqueued : e.completed - e.enqueued);
    out += line;
  }
  return out.empty() ? "  no collective was entered\n" : out;
}

std::string FlightRecorder::json() const {
  std::string out = "[";
  for (const FlightEntry& e : entries()) {
    LogLine line("collective");
    line.add("sequence", e.sequence).add("count", e.count).add("name", e.name).add("bytes", e.bytes);
    line.add("enqueued_s", e.enqueued);
    if (e.completed < 0.0)
      line.raw("completed_s", "null");
    else
      line.add("completed_s", e.completed);
    out += (out.size() > 1 ? ",\n  " : "\n  ") + line.text();
  }
  return out + "\n]";
}

}  // namespace eg
