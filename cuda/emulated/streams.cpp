// cuda/emulated/streams.cpp - see streams.h.
#include "cuda/emulated/streams.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "cuda/emulated/heap.h"
#include "engine/error.h"

namespace eg::emulated {
namespace {

std::uint64_t number(std::string_view text, std::string_view whole) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc{} && end == text.data() + text.size() && !text.empty(), Kind::usage,
        [&] { return cat("EVERGRAD_EMULATED=", whole, ": '", text, "' is not a whole number"); });
  return value;
}

std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  return x ^ (x >> 31);
}

}  // namespace

Settings parse_settings(std::string_view text) {
  Settings s;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
    const std::size_t equals = part.find('=');
    const std::string_view name = part.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? std::string_view{} : part.substr(equals + 1);
    const std::size_t colon = value.find(':');
    const std::string_view kind = value.substr(0, colon);
    const auto seed = [&] { return colon == std::string_view::npos ? 0 : number(value.substr(colon + 1), text); };
    if (name == "workers") {
      s.workers = int(number(value, text));
    } else if (name == "schedule" && (kind == "round-robin" || kind == "random")) {
      s.schedule = {kind == "random", seed()};
    } else if (name == "streams" && (kind == "eager" || kind == "lazy")) {
      s.lazy = kind == "lazy", s.stream_seed = seed();
    } else {
      fail(Kind::usage,
           cat("EVERGRAD_EMULATED=", text, ": '", part,
               "' is not understood; write workers=N, schedule=round-robin|random:SEED, streams=eager|lazy:SEED"));
    }
  }
  return s;
}

Settings& settings() {
  static Settings s = [] {
    const char* const text = std::getenv("EVERGRAD_EMULATED");
    return parse_settings(text ? text : "");
  }();
  return s;
}

Streams& Streams::instance() {
  static Streams* const all = new Streams;
  return *all;
}

StreamState* Streams::create() {
  const std::lock_guard lock(mutex_);
  streams_.push_back(std::make_unique<StreamState>());
  return streams_.back().get();
}
void Streams::destroy(StreamState* s) {
  const std::lock_guard lock(mutex_);
  std::erase_if(streams_, [&](const auto& x) { return x.get() == s; });
}

void Streams::refuse_while_capturing(const char* what) const {
  check(!capturing(), Kind::usage, [&] {
    return cat(
        what,
        " while a step is recorded: a recording holds launches and copies only, and would not repeat it; do it before "
        "or after");
  });
}

void Streams::enqueue(Stream s, Operation operation) {
  const std::lock_guard lock(mutex_);
  if (recording_) {
    recording_->operations.push_back(std::move(operation));
    return;
  }
  StreamState& state = *find(s);
  state.queue.push_back({std::move(operation), nullptr, 0});
  if (!settings().lazy) synchronize(s);
}

void Streams::record(EventState* e, Stream s) {
  const std::lock_guard lock(mutex_);
  if (recording_) return;  // a recording is one list, so every order between streams is kept
  const std::uint64_t ticket = ++tickets_;
  e->ticket = ticket;
  enqueue(s, {"event record", [e, ticket] { e->reached = std::max(e->reached, ticket); }});
}

void Streams::wait(Stream s, EventState* e) {
  const std::lock_guard lock(mutex_);
  if (recording_ || e->ticket == 0) return;  // never recorded: nothing to wait for, as on CUDA
  find(s)->queue.push_back({{"event wait", [] {}}, e, e->ticket});
  if (!settings().lazy) synchronize(s);
}

bool Streams::can_run(const StreamState& s) const {
  return !s.queue.empty() && (!s.queue.front().awaited || s.queue.front().awaited->reached >= s.queue.front().ticket);
}

void Streams::run_one(StreamState& s) {
  const StreamState::Item item = std::move(s.queue.front());
  s.queue.pop_front();
  try {
    item.operation.run();
    if (const auto damage = Heap::instance().take_damage())
      fail(Kind::internal, cat(item.operation.name, ": ", *damage));
  } catch (...) {
    s.queue.clear();
    throw;
  }
}

StreamState* Streams::draw() {
  std::vector<StreamState*> ready;
  if (can_run(main_)) ready.push_back(&main_);
  for (const auto& s : streams_)
    if (can_run(*s)) ready.push_back(s.get());
  if (ready.empty()) return nullptr;
  return ready[settings().lazy ? mixed(settings().stream_seed + ++draws_) % ready.size() : 0];
}

void Streams::synchronize(Stream s) {
  const std::lock_guard lock(mutex_);
  StreamState& state = *find(s);
  while (!state.queue.empty()) {
    StreamState* const next = !settings().lazy && can_run(state) ? &state : draw();
    check(next != nullptr, Kind::usage, [] {
      return std::string(
          "deadlock of streams: each waits for an event that is recorded behind another wait; order the records "
          "before the waits");
    });
    run_one(*next);
  }
}

void Streams::synchronize_all() {
  const std::lock_guard lock(mutex_);
  synchronize({});
  for (std::size_t i = 0; i < streams_.size(); ++i) synchronize({streams_[i].get()});
}

bool Streams::capture(Stream s, const std::function<void()>& body, GraphState& graph) {
  const std::lock_guard lock(mutex_);
  refuse_while_capturing("a second recording");
  synchronize(s);
  recording_ = &graph;
  try {
    body();
  } catch (...) {
    recording_ = nullptr;
    throw;
  }
  recording_ = nullptr;
  return true;
}

}  // namespace eg::emulated
