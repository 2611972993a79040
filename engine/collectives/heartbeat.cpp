// engine/collectives/heartbeat.cpp - see heartbeat.h.
#include "engine/collectives/heartbeat.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "engine/collectives/store.h"
#include "engine/collectives/tcp_messages.h"
#include "engine/error.h"

namespace eg {
namespace {

/// One rank writes a checkpoint while the others wait: slow disks are no failure.
constexpr double kBusyDeadlines = 10.0;

std::string seconds(double s) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", s);
  return text;
}

template <class T>
bool read(const std::string& text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc{} && end == text.data() + text.size();
}

std::string place(const FlightPosition& p, std::uint64_t sequence) {
  return cat("collective #", sequence, p.name.empty() ? "" : cat(" (", p.name, ", ", p.bytes, " bytes)"));
}

/// Where a rank was when it was last heard.
std::string last_words(const FlightPosition& p) {
  if (p.entered == 0) return "it has entered no collective yet";
  if (p.waiting > 0.0) return cat("it waited in ", place(p, p.done + 1));
  return cat("its last was ", place(p, p.entered));
}

}  // namespace

std::string to_text(const Beat& b) {
  return pack({std::to_string(b.number), b.left ? "1" : "0", std::to_string(b.position.entered),
               std::to_string(b.position.done), std::to_string(std::int64_t(b.position.waiting * 1e6)), b.position.name,
               std::to_string(b.position.bytes), b.who, b.busy});
}

std::optional<Beat> beat_from(const std::string& text) {
  const auto f = text.size() < 4 ? std::nullopt : unpack(std::string_view(text).substr(4));
  if (!f || f->size() != 9) return std::nullopt;
  Beat b;
  std::int64_t waiting = 0;
  const bool ok = read((*f)[0], &b.number) && read((*f)[2], &b.position.entered) && read((*f)[3], &b.position.done) &&
                  read((*f)[4], &waiting) && read((*f)[6], &b.position.bytes);
  if (!ok) return std::nullopt;
  b.left = (*f)[1] == "1", b.position.waiting = double(waiting) * 1e-6, b.position.name = (*f)[5], b.who = (*f)[7],
  b.busy = (*f)[8];
  return b;
}

Heartbeat::Heartbeat(int me, int size, double now) : me_(me), ranks_(std::size_t(size)) {
  for (Heard& h : ranks_) h.changed = now;
}

void Heartbeat::hear(int rank, const Beat& beat, double now) {
  Heard& h = ranks_.at(std::size_t(rank));
  if (h.any && h.beat.number == beat.number) return;
  h.beat = beat, h.changed = now, h.any = true;
}

std::optional<std::string> Heartbeat::verdict(double deadline, double now) const {
  if (auto v = silent(deadline, now)) return v;
  if (auto v = split()) return v;
  return stuck(deadline, now);
}

std::optional<std::string> Heartbeat::silent(double deadline, double now) const {
  std::string text;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    const Heard& h = ranks_[r];
    const double quiet = now - h.changed, most = h.any ? deadline / 2 : deadline * 7 / 8;
    if (int(r) == me_ || h.beat.left || quiet < most) continue;
    text += cat(text.empty() ? "" : "; ", "rank ", r,
                h.any ? cat(" (", h.beat.who, ") has not been heard for ", seconds(quiet), "; when last heard, ",
                            last_words(h.beat.position))
                      : cat(" was not heard at all for ", seconds(quiet)));
  }
  if (text.empty()) return std::nullopt;
  return text + ". Such a process is stopped (SIGSTOP, a debugger), or its host is cut off or overloaded";
}

std::optional<std::string> Heartbeat::split() const {
  const Heard& mine = ranks_[std::size_t(me_)];
  const FlightPosition& p = mine.beat.position;
  if (p.waiting <= 0.0) return std::nullopt;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    const FlightPosition& q = ranks_[r].beat.position;
    if (int(r) == me_ || q.waiting <= 0.0 || q.done != p.done || (q.name == p.name && q.bytes == p.bytes)) continue;
    return cat("the ranks took different paths: rank ", me_, " is in ", place(p, p.done + 1), " and rank ", r, " (",
               ranks_[r].beat.who, ") in ", place(q, q.done + 1), ". This is a bug in evergrad; please report it");
  }
  return std::nullopt;
}

std::optional<std::string> Heartbeat::stuck(double deadline, double) const {
  const FlightPosition& p = ranks_[std::size_t(me_)].beat.position;
  if (p.waiting < deadline * 7 / 8) return std::nullopt;
  std::string text;
  bool busy = false;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    const Heard& h = ranks_[r];
    if (int(r) == me_ || h.beat.position.entered > p.done) continue;
    busy = busy || !h.beat.busy.empty();
    text += cat(text.empty() ? "" : "; ", "rank ", r, " (", h.beat.who, ") ",
                h.beat.left ? "has left" : "is alive but late",
                h.beat.busy.empty() ? "" : cat(" (busy with ", h.beat.busy, ")"), ": it has not entered it; ",
                last_words(h.beat.position));
  }
  if (busy && p.waiting < kBusyDeadlines * deadline * 7 / 8) return std::nullopt;
  return cat("rank ", me_, " has waited ", seconds(p.waiting), " in ", place(p, p.done + 1), ", the deadline is ",
             seconds(busy ? kBusyDeadlines * deadline : deadline), ". ",
             text.empty() ? "All ranks have entered it and none has failed: the network or a device hangs"
                          : text + ". Raise --step-deadline if such a step is meant to take so long");
}

}  // namespace eg
