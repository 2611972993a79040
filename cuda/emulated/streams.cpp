// cuda/emulated/streams.cpp - see streams.h.
#include "cuda/emulated/streams.h"

#include <algorithm>

#include "cuda/emulated/heap.h"
#include "engine/error.h"

namespace eg::emulated {
namespace {

std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  return x ^ (x >> 31);
}

}  // namespace

std::vector<int> GraphState::order(bool random, std::uint64_t seed) const {
  std::vector<int> out, open(steps.size()), ready;
  std::vector<std::vector<int>> before(steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    open[i] = int(steps[i].after.size());
    for (const int j : steps[i].after) before[std::size_t(j)].push_back(int(i));
    if (open[i] == 0) ready.push_back(int(i));
  }
  while (!ready.empty()) {
    const auto at = random ? ready.begin() + std::ptrdiff_t(mixed(seed + out.size()) % ready.size())
                           : std::min_element(ready.begin(), ready.end());
    const int step = *at;
    ready.erase(at);
    out.push_back(step);
    for (const int next : before[std::size_t(step)])
      if (--open[std::size_t(next)] == 0) ready.push_back(next);
  }
  return out;
}

Streams& Streams::instance() {
  static Streams* const all = new Streams;
  return *all;
}

StreamState* Streams::create() {
  const std::lock_guard lock(mutex_);
  streams_.push_back(std::make_unique<StreamState>());
  streams_.back()->chain = order_.new_chain();
  return streams_.back().get();
}

void Streams::destroy(StreamState* s) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    drain(*s);
  } catch (...) { kept_fault_ = std::current_exception(); }
  std::erase_if(streams_, [&](const auto& x) { return x.get() == s; });
}

void Streams::enqueue(Stream s, Operation operation) {
  const std::lock_guard lock(mutex_);
  StreamState& state = find(s);
  if (records(state)) {
    recording_->steps.push_back({std::move(operation), state.after});
    state.after = {int(recording_->steps.size()) - 1};
    return;
  }
  put(state, {std::move(operation), nullptr, nullptr, 0, moment_of(state)});
}

void Streams::put(StreamState& s, StreamState::Item item) {
  s.queue.push_back(std::move(item));
  if (!settings().lazy) drain(s);
}

// Nobody asks for it where nobody watches.
Moment Streams::moment_of(StreamState& s) { return watcher ? order_.next(s.chain, s.behind) : Moment{}; }

void Streams::record(const std::shared_ptr<EventState>& e, Stream s) {
  const std::lock_guard lock(mutex_);
  StreamState& state = find(s);
  if (records(state)) {
    // A step of its own, so that whoever waits has something to name even before the stream's first launch.
    enqueue(s, {"event record", [] {}});
    e->recording = recording_number_, e->step = state.after.front();
    return;
  }
  e->recording = 0;
  e->ticket = ++tickets_;
  Operation reached{"event record", [] {}};
  if (e->timed) reached.run = [e] { e->moment = std::chrono::steady_clock::now(); };
  e->behind = state.behind;
  put(state, {std::move(reached), nullptr, e, e->ticket, {}});
}

void Streams::wait(Stream s, const std::shared_ptr<EventState>& e) {
  const std::lock_guard lock(mutex_);
  StreamState& state = find(s);
  if (e->recording != 0) {
    check(recording_ && e->recording == recording_number_, Kind::usage, [] {
      return std::string(
          "a wait for an event that was last recorded inside a recording which is over; record it again first");
    });
    if (!records(state)) state.recording = recording_number_, state.after.clear();  // it joins the recording
    if (std::find(state.after.begin(), state.after.end(), e->step) == state.after.end()) state.after.push_back(e->step);
    return;
  }
  if (e->ticket == 0) return;  // never recorded
  check(!records(state), Kind::usage, [] {
    return std::string("a recorded stream waits for an event from outside the recording; wait before recording begins");
  });
  state.behind.join(e->behind);
  put(state, {{"event wait", [] {}}, e, nullptr, e->ticket, {}});
}

bool Streams::can_run(const StreamState& s) const {
  return !s.queue.empty() && (!s.queue.front().awaited || s.queue.front().awaited->reached >= s.queue.front().ticket);
}

// What follows a fault does not run. Events in it count as reached, so that others do not wait for ever.
void Streams::drop(StreamState& s) {
  for (const StreamState::Item& item : s.queue)
    if (item.recorded) item.recorded->reached = std::max(item.recorded->reached, item.ticket);
  s.queue.clear();
}

void Streams::run_one(StreamState& s) {
  const StreamState::Item item = std::move(s.queue.front());
  s.queue.pop_front();
  if (item.recorded) item.recorded->reached = std::max(item.recorded->reached, item.ticket);
  running_ = item.moment;
  try {
    item.operation.run();
    if (const auto damage = Heap::instance().take_damage())
      fail(Kind::internal, cat(item.operation.name, ": ", *damage));
  } catch (...) {
    drop(s);
    throw;
  }
}

// Drawn evenly, two streams get through short queues at about the same time. What only goes wrong when one of them is far ahead
// needs an order that prefers it: that of every second and third seed.
StreamState* Streams::draw(StreamState& awaited) {
  const bool mine = can_run(awaited);
  if (mine && (!settings().lazy || settings().stream_seed % 3 == 1)) return &awaited;
  std::vector<StreamState*> ready;
  if (can_run(main_)) ready.push_back(&main_);
  for (const auto& s : streams_)
    if (can_run(*s)) ready.push_back(s.get());
  if (settings().lazy && settings().stream_seed % 3 == 2 && ready.size() > 1) std::erase(ready, &awaited);
  if (ready.empty()) return nullptr;
  return ready[settings().lazy ? mixed(settings().stream_seed * 0x10001 + ++draws_) % ready.size() : 0];
}

void Streams::synchronize(Stream s) {
  const std::lock_guard lock(mutex_);
  if (kept_fault_) std::rethrow_exception(std::exchange(kept_fault_, nullptr));
  StreamState& state = find(s);
  drain(state);
  order_.host_waited_for(state.behind);
  host_waited();
}

void Streams::drain(StreamState& state) {
  while (!state.queue.empty()) {
    StreamState* const next = draw(state);
    check(next != nullptr, Kind::usage, [] {
      return std::string(
          "deadlock of streams: each waits for an event that is recorded behind another wait; order the records "
          "before the waits");
    });
    run_one(*next);
  }
}

void Streams::finish_quietly() noexcept {
  const std::lock_guard lock(mutex_);
  const auto finish = [&](StreamState& s) {
    while (!s.queue.empty()) {
      try {
        drain(s);
      } catch (...) {
        if (!kept_fault_) kept_fault_ = std::current_exception();
        if (!draw(s)) drop(s);  // a deadlock
      }
    }
  };
  finish(main_);
  for (std::size_t i = 0; i < streams_.size(); ++i) finish(*streams_[i]);  // work may make streams
  order_.host_waited_for_all();                                            // also for streams that are gone
  host_waited();
}

void Streams::host_waited() {
  if (watcher && order_.settled()) watcher->settled();
}

// On CUDA a recording ends on the stream where it began, and everything forked from it must have come back.
void Streams::check_joined(StreamState& origin) {
  std::vector<bool> reached(recording_->steps.size(), false);
  std::vector<int> open = origin.after;
  while (!open.empty()) {
    const int step = open.back();
    open.pop_back();
    if (reached[std::size_t(step)]) continue;
    reached[std::size_t(step)] = true;
    const std::vector<int>& after = recording_->steps[std::size_t(step)].after;
    open.insert(open.end(), after.begin(), after.end());
  }
  for (std::size_t i = 0; i < reached.size(); ++i)
    check(reached[i], Kind::usage, [&] {
      return cat("the recording ends while '", recording_->steps[i].operation.name,
                 "' stands on another stream; record an event there and let the first stream wait for it");
    });
}

bool Streams::recording() const {
  const std::lock_guard lock(mutex_);
  return recording_ != nullptr;
}

void Streams::capture(Stream s, const std::function<void()>& body, GraphState& graph) {
  const std::lock_guard lock(mutex_);
  synchronize(s);
  StreamState& origin = find(s);
  recording_ = &graph, ++recording_number_;
  origin.recording = recording_number_, origin.after.clear();
  try {
    body();
    check_joined(origin);
    if (watcher) name_chains(graph);
  } catch (...) {
    recording_ = nullptr;
    throw;
  }
  recording_ = nullptr;
}

void Streams::name_chains(GraphState& graph) {
  std::vector<bool> continued(graph.steps.size(), false);
  for (GraphState::Step& step : graph.steps) {
    const auto before = std::ranges::find_if(step.after, [&](int i) { return !continued[std::size_t(i)]; });
    if (before == step.after.end()) {
      step.chain = order_.new_chain();
    } else {
      step.chain = graph.steps[std::size_t(*before)].chain;
      continued[std::size_t(*before)] = true;
    }
  }
}

void Streams::replay(const GraphState& graph, Stream s) {
  const std::lock_guard lock(mutex_);
  StreamState& state = find(s);
  wait(s, graph.replayed);  // one recording plays once at a time, whatever streams it is played on
  std::vector<Moment> moments(graph.steps.size());
  if (watcher) {  // a recording begins when all before it is over, and is over when all of it is
    const Behind before = state.behind;
    for (std::size_t i = 0; i < graph.steps.size(); ++i) {
      Behind behind = before;
      for (const int j : graph.steps[i].after) behind.join(*moments[std::size_t(j)].behind);
      moments[i] = order_.next(graph.steps[i].chain, behind);
      state.behind.join(behind);
    }
  }
  const Settings& now = settings();
  for (const int i : graph.order(now.lazy, now.stream_seed + ++draws_))
    put(state, {graph.steps[std::size_t(i)].operation, nullptr, nullptr, 0, moments[std::size_t(i)]});
  record(graph.replayed, s);
}

}  // namespace eg::emulated
