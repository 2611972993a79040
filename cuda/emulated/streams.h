// cuda/emulated/streams.h - queues of work, events and recordings of the emulated device.
//
// Eager streams run work where it is enqueued. Lazy ones run it only when somebody synchronises, each time drawing
// among the streams that can go on: a missing wait, a host that reads too early, a buffer that is freed too early then
// give other results with other seeds.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/emulated/block.h"
#include "cuda/emulated/order.h"
#include "engine/device.h"

namespace eg::emulated {

/// What EVERGRAD_EMULATED says: "workers=2,schedule=random:7,streams=lazy:3,shared=99,fastest=tile-64,library=5", any part of
/// it (shared in KiB). Of lazy streams seeds 1, 4, 7 ... run the others as late as possible, 2, 5, 8 ... as early.
struct Settings {
  int workers = 0;  // most OS threads that run blocks; 0: as many as evergrad uses threads
  Schedule schedule;
  bool lazy = false;
  std::uint64_t stream_seed = 0;
  std::size_t shared_bytes = 227 * 1024;  // that a block gets at most: an H100's; smaller cards give less
  std::string fastest;  // the kernel that --kernels auto is to find the fastest; empty: nothing can be measured
  std::optional<std::uint64_t>
      library;  // a library for attention's backward pass that gives NaN from this call on; 0: never
};
/// Throws Error{usage} naming the part that is wrong.
Settings parse_settings(std::string_view text);
/// The settings in force; changing them between launches is allowed.
Settings& settings();

/// One operation of a stream. Runs when its turn comes.
struct Operation {
  std::string name;
  std::function<void()> run;
};

struct EventState {
  std::uint64_t ticket = 0;   // of the latest record; 0: never recorded
  std::uint64_t reached = 0;  // the latest record that ran
  // Where it was recorded last, if that was inside a recording: number of the recording, and a step of it.
  std::uint64_t recording = 0;
  int step = -1;
  Behind behind;  // the latest record
  bool timed = false;
  std::chrono::steady_clock::time_point moment;  // of the latest record that ran, where it is timed
};
struct StreamState {
  struct Item {
    Operation operation;
    std::shared_ptr<EventState> awaited, recorded;  // a wait, or a record
    std::uint64_t ticket = 0;
    Moment moment;
  };
  std::deque<Item> queue;
  int chain = 0;
  Behind behind;  // of its next piece of work
  // While it takes part in a recording: the steps that its next one comes after.
  std::uint64_t recording = 0;
  std::vector<int> after;
};

/// A recorded piece of work: a list of operations, each with the earlier ones that it must come after.
struct GraphState {
  struct Step {
    Operation operation;
    std::vector<int> after;
    int chain = 0;  // a step continues the chain of the first step before it that has no other to continue it
  };
  std::vector<Step> steps;
  std::shared_ptr<EventState> replayed = std::make_shared<EventState>();
  /// An order that respects every dependency: the recorded one, or one drawn from the seed.
  std::vector<int> order(bool random, std::uint64_t seed) const;
};

/// All streams of the process. The null handle is a stream of its own.
class Streams {
 public:
  static Streams& instance();
  void enqueue(Stream s, Operation operation);
  void record(const std::shared_ptr<EventState>& e, Stream s);
  /// Waits for the latest record at the time of this call; no record, no wait.
  void wait(Stream s, const std::shared_ptr<EventState>& e);
  /// Runs what the stream holds, and of other streams what it waits for (lazy: whatever the seed draws). Throws the
  /// first fault; the later work of the stream that failed is dropped, as on CUDA.
  void synchronize(Stream s);
  /// Runs everything, and keeps a fault for the next synchronisation.
  void finish_quietly() noexcept;
  /// Records what `body` enqueues on s, and on streams that come to wait for s meanwhile. Others run as always.
  void capture(Stream s, const std::function<void()>& body, GraphState& graph);
  void replay(const GraphState& graph, Stream s);
  bool recording() const;
  /// The operation that runs now, for the race detector.
  const Moment& running() const { return running_; }
  StreamState* create();
  /// Work that the stream still holds runs first.
  void destroy(StreamState* s) noexcept;

 private:
  StreamState& find(Stream s) { return s.handle ? *static_cast<StreamState*>(s.handle) : main_; }
  bool records(const StreamState& s) const { return recording_ && s.recording == recording_number_; }
  void check_joined(StreamState& origin);
  Moment moment_of(StreamState& s);
  void name_chains(GraphState& graph);
  void put(StreamState& s, StreamState::Item item);
  void drain(StreamState& s);
  void host_waited();
  bool can_run(const StreamState& s) const;
  void run_one(StreamState& s);
  void drop(StreamState& s);
  /// The stream whose next operation runs, while `awaited` is synchronised; null: none can.
  StreamState* draw(StreamState& awaited);

  Order order_;
  StreamState main_;  // chain 0
  Moment running_;
  std::vector<std::unique_ptr<StreamState>> streams_;
  GraphState* recording_ = nullptr;
  std::uint64_t recording_number_ = 0, tickets_ = 0, draws_ = 0;
  std::exception_ptr kept_fault_;
  mutable std::recursive_mutex mutex_;
};

}  // namespace eg::emulated
