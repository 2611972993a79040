// apps/bench/timeline.h - when each part of a training step and each collective began and ended, on one rank.
//
// Parts and collectives lie between two timed events on their stream (engine/device.h): begin and end say when the device was
// there, on every device. Steps, and collectives that make the host wait, are timed by the host. One event that both know, at
// start(), puts the two clocks together, to about the time in which a host learns that a device is idle.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "apps/distributed/gradient_buckets.h"
#include "apps/step_listener.h"
#include "engine/collectives/collectives.h"
#include "engine/tensor.h"

namespace eg {

/// A stretch of time in one step of one rank. Seconds since start().
struct Span {
  enum class Kind : std::uint8_t { step, part, collective } kind = Kind::step;
  int step = 0;
  double enqueued = 0.0, begin = 0.0,
         end = 0.0;  // enqueued: the host's call; the same as begin where work is done at once
  StepPart part = StepPart::data;
  int group = -1;  // of parts backward, observe and wait, as StepListener says
  // Of collectives:
  std::string name;             // "all_reduce"
  double bytes = 0.0;           // of the data of all ranks together, or what each of them ends with
  int passes = 0;               // times that this goes round: 2 for an all-reduce, 1 for a gather
  int bucket = -1, range = -1;  // which part of the gradient it sums; -1: something else
  int weights = -1;             // the bucket whose weights it gathers; -1: something else
  bool blocks = false;  // the host or the main stream, and with it everything that is enqueued later, waits for it
  double seconds() const { return end - begin; }
};

class Timeline final : public StepListener {
 public:
  explicit Timeline(Device device);
  ~Timeline() override;
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;
  /// Forgets everything; time begins now. All ranks leave a barrier before, so that their clocks agree to its skew.
  void start();
  /// Between these two, and only there, spans are kept.
  void begin_step();
  void end_step();
  void begin(StepPart part, Stream stream) override;
  void end(StepPart part, int group, Stream stream) override;
  /// `inner` with every collective on the timeline, which must outlive it.
  std::shared_ptr<Collectives> traced(std::shared_ptr<Collectives> inner);
  /// Sums within `gradient` are those of these buckets, and gathers within `weights` (laid out alike) those of theirs.
  void name_buckets(const std::vector<GradientBuckets::Bucket>& buckets, const Tensor& gradient, const Tensor& weights);
  /// In the order in which the host began them. Only when the device has done all that was enqueued.
  const std::deque<Span>& spans();

 private:
  friend class TracedCollectives;
  double now() const;
  void stamp(double* at, const Stream* stream);
  void forget_events();
  Span* open(Span::Kind kind);  // null outside of steps

  const Device device_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::deque<Span> spans_;  // whose elements stay where they are
  struct Stamp {
    double* at;
    Event event;
  };
  std::vector<Stamp> stamps_;  // to be read when their streams have reached them
  Event origin_;               // reached at start_; made by the first start()
  std::array<Span*, kStepParts> parts_{};
  Span* step_ = nullptr;
  int steps_ = 0;
  std::vector<GradientBuckets::Bucket> buckets_;
  Tensor gradient_, weights_;
};

}  // namespace eg
