// apps/step_listener.h - somebody who hears which part of a training step begins and ends: apps/bench/timeline.h.
#pragma once
#include <cstdint>

#include "engine/device.h"

namespace eg {

/// data: the loader is waited for. prepare: what the host sets up. observe: the method looks at one group's final gradient.
/// update: norm, optimizer, moving average. finish: losses and the step record are read back. wait: inside of forward, what follows
/// on the stream waits for weights that other ranks have updated (--zero 1).
enum class StepPart : std::uint8_t { data, prepare, forward, backward, observe, update, finish, wait };
inline constexpr int kStepParts = 8;

class StepListener {
 public:
  virtual ~StepListener() = default;
  /// What is enqueued on `stream` until end() is of this part. Parts do not nest, but for waits.
  virtual void begin(StepPart part, Stream stream) = 0;
  /// group: of backward, the gradient group that is final now; of observe, the one looked at; of wait, the block that needs the
  /// weights (depth: what comes behind the blocks); else -1.
  virtual void end(StepPart part, int group, Stream stream) = 0;
};

/// A part while it lives; nothing where nobody listens.
class InPart {
 public:
  InPart(StepListener* listener, StepPart part, Stream stream = {}, int group = -1)
      : listener_(listener), part_(part), stream_(stream), group_(group) {
    if (listener_) listener_->begin(part_, stream_);
  }
  ~InPart() {
    if (listener_) listener_->end(part_, group_, stream_);
  }
  InPart(const InPart&) = delete;
  InPart& operator=(const InPart&) = delete;

 private:
  StepListener* const listener_;
  const StepPart part_;
  const Stream stream_;
  const int group_;
};

}  // namespace eg
