// engine/side_stream.h - work that may run beside the main stream of a step, and is waited for where it is needed.
#pragma once
#include "engine/device.h"

namespace eg {

/// Owns a stream and two events. On devices without streams all of it is nothing: work runs where it is enqueued.
class SideStream {
 public:
  explicit SideStream(Device device) : runtime_(runtime(device)) {}
  ~SideStream() {
    runtime_.destroy_event(begun_);
    runtime_.destroy_event(done_);
    runtime_.destroy_stream(side_);
  }
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  /// The side stream, after all that was enqueued on `main` so far.
  Stream fork(Stream main) {
    if (!made_) side_ = runtime_.create_stream(), begun_ = runtime_.create_event(), done_ = runtime_.create_event();
    made_ = forked_ = true;
    runtime_.record(begun_, main);
    runtime_.wait(side_, begun_);
    return side_;
  }
  /// What is enqueued on `main` from here on runs after the side stream's work. Without a fork before it, nothing: a
  /// recorded step may only wait for events of its own.
  void join(Stream main) {
    if (!forked_) return;
    forked_ = false;
    runtime_.record(done_, side_);
    runtime_.wait(main, done_);
  }

 private:
  DeviceRuntime& runtime_;
  Stream side_;
  Event begun_, done_;
  bool made_ = false, forked_ = false;
};

}  // namespace eg
