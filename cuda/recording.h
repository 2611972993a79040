// cuda/recording.h - what a thread may not do while it records a step: the same rules, in the same words, for both
// backends. CUDA itself would break the recording (an allocation, a wait) or, worse, keep it: a copy from the host
// would bring the same bytes at every replay.
#pragma once
#include <exception>
#include <functional>
#include <utility>
#include <vector>

#include "engine/device.h"
#include "engine/error.h"

namespace eg {

struct Unrecordable {
  const char *what, *remedy;
};
inline constexpr Unrecordable kAllocation{
    "an allocation", "run the step once before recording it, and draw what it needs from the device's pool"};
inline constexpr Unrecordable kRelease{"the release of a device block",
                                       "keep the tensor until the step is over, or draw it from the device's pool"};
inline constexpr Unrecordable kCopyFromHost{"a copy from the host",
                                            "copy the step's inputs into place before it begins"};
inline constexpr Unrecordable kCopyToHost{"a copy to the host", "read results when the step is over"};
inline constexpr Unrecordable kWaiting{"waiting for the device",
                                       "wait when the step is over; inside it, let a stream wait for another's event"};
inline constexpr Unrecordable kTimedEvent{"a timed event", "time a step that is not recorded"};
inline constexpr Unrecordable kSecondRecording{"a second recording", "end the first one before"};

namespace detail {
struct RecordingNow {
  std::vector<std::pair<DeviceRuntime*, void*>> released;
};
/// Of this thread; other threads go on as always (a loader may fill its buffers meanwhile).
inline thread_local RecordingNow* recording_now = nullptr;

inline std::string refusal(const Unrecordable& u, std::size_t bytes) {
  return cat(u.what, bytes ? cat(" of ", bytes, " bytes") : std::string(),
             " while a step is recorded: a recording holds launches and copies on the device only, and would not "
             "repeat it; ",
             u.remedy);
}
}  // namespace detail

inline bool recording_here() { return detail::recording_now != nullptr; }

/// Throws Error{usage} while this thread records.
inline void refuse_in_recording(const Unrecordable& u, std::size_t bytes = 0) {
  check(!detail::recording_now, Kind::usage, [&] { return detail::refusal(u, bytes); });
}

/// True while this thread records: the block stays, since the recording may name it, until the recording has ended and
/// was refused for it. For release(), which cannot throw.
inline bool keep_in_recording(DeviceRuntime& runtime, void* block) noexcept {
  if (detail::recording_now) detail::recording_now->released.emplace_back(&runtime, block);
  return detail::recording_now != nullptr;
}

/// Runs `record`, which begins and ends a recording, under these rules.
inline void record_under_rules(const std::function<void()>& record) {
  refuse_in_recording(kSecondRecording);
  detail::RecordingNow here;
  detail::recording_now = &here;
  std::exception_ptr fault;
  try {
    record();
  } catch (...) { fault = std::current_exception(); }
  detail::recording_now = nullptr;
  for (const auto& [runtime, block] : here.released) runtime->release(block);
  if (fault) std::rethrow_exception(fault);
  check(here.released.empty(), Kind::usage, [] { return detail::refusal(kRelease, 0); });
}

}  // namespace eg
