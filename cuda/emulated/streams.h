// cuda/emulated/streams.h - queues of work, events and recordings of the emulated device.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/emulated/block.h"
#include "engine/device.h"

namespace eg::emulated {

/// What EVERGRAD_EMULATED says: "workers=2,schedule=random:7,streams=lazy:3", any part of it.
struct Settings {
  int workers = 0;  // OS threads that run blocks; 0: as many as evergrad uses threads
  Schedule schedule;
  bool lazy = false;  // work runs when somebody synchronises, in an order drawn from the seed
  std::uint64_t stream_seed = 0;
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
};
struct StreamState {
  struct Item {
    Operation operation;
    EventState* awaited = nullptr;
    std::uint64_t ticket = 0;
  };
  std::deque<Item> queue;
};
struct GraphState {
  std::vector<Operation> operations;
};

/// All streams of the process. The null handle is a stream of its own.
class Streams {
 public:
  static Streams& instance();
  void enqueue(Stream s, Operation operation);
  void record(EventState* e, Stream s);
  void wait(Stream s, EventState* e);
  /// Runs what the stream holds, and of other streams what it waits for (lazy: whatever the seed draws). Throws the
  /// first fault; the stream's later work is dropped, as on CUDA.
  void synchronize(Stream s);
  void synchronize_all();
  bool capture(Stream s, const std::function<void()>& body, GraphState& graph);
  bool capturing() const { return recording_ != nullptr; }
  /// Throws Error{usage}: `what` cannot be done while a stream is captured.
  void refuse_while_capturing(const char* what) const;
  StreamState* create();
  void destroy(StreamState* s);
  StreamState* find(Stream s) { return s.handle ? static_cast<StreamState*>(s.handle) : &main_; }

 private:
  bool can_run(const StreamState& s) const;
  void run_one(StreamState& s);
  StreamState* draw();

  StreamState main_;
  std::vector<std::unique_ptr<StreamState>> streams_;
  GraphState* recording_ = nullptr;
  std::uint64_t tickets_ = 0, draws_ = 0;
  std::recursive_mutex mutex_;
};

}  // namespace eg::emulated
