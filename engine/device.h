// engine/device.h - what a device is: one kernel table (kernels.h) and one small runtime (this file).
//
// The engine keeps a run-time registry. `reference` and `cpu` are always there; cuda/ registers `cuda:N` and `emulated`
// through the one function that apps/evergrad.cpp and the tests call. Nothing here includes anything of cuda/.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/dtype.h"

namespace eg {

/// The kinds of device. `reference` computes in double precision with plain loops, and is the oracle of the others.
enum class DeviceType : std::uint8_t { reference, cpu, emulated, cuda };

/// Names a device; the objects behind the name are kernels(device) and runtime(device).
struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
  /// True when host code may read and write the device's memory directly.
  bool is_host() const { return type == DeviceType::reference || type == DeviceType::cpu; }
  /// The dtype of statistics (mean, rstd, lse) and losses on this device: double in `reference`, fp32 elsewhere.
  DType statistic() const { return type == DeviceType::reference ? DType::f64 : DType::f32; }
};
inline constexpr Device kCpu{DeviceType::cpu, 0};
inline constexpr Device kReference{DeviceType::reference, 0};

std::string to_string(Device device);
/// Reads "cpu", "reference", "emulated", "cuda" or "cuda:N". Throws Error{usage} on anything else.
Device parse_device(std::string_view text);
inline std::ostream& operator<<(std::ostream& o, Device d) { return o << to_string(d); }

/// A queue of work on a device. Host devices run everything at once and use the null handle.
struct Stream {
  void* handle = nullptr;
};
/// A point in a stream that another stream can wait for.
struct Event {
  void* handle = nullptr;
};
/// A recorded step, replayed by DeviceRuntime::replay.
struct Graph {
  void* handle = nullptr;
};

/// The few things the engine asks of a device besides kernels. One object per device, alive for the whole process.
class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;
  /// At least 64-byte aligned; throws Error{memory} naming request and device. bytes == 0 gives nullptr.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* block) noexcept = 0;
  virtual void copy_from_host(void* device, const void* host, std::size_t bytes, Stream s) = 0;
  virtual void copy_to_host(void* host, const void* device, std::size_t bytes, Stream s) = 0;
  virtual void copy_within(void* to, const void* from, std::size_t bytes, Stream s) = 0;
  virtual void set_zero(void* block, std::size_t bytes, Stream s) = 0;
  virtual void synchronize(Stream s) = 0;

  virtual Stream create_stream() { return {}; }
  virtual void destroy_stream(Stream) noexcept {}
  virtual Event create_event() { return {}; }
  virtual void destroy_event(Event) noexcept {}
  virtual void record(Event, Stream) {}
  virtual void wait(Stream, Event) {}
  /// Records what `body` enqueues on s. Host devices cannot capture: they return false and run nothing.
  virtual bool capture(Stream, const std::function<void()>& /*body*/, Graph*) { return false; }
  virtual void replay(Graph, Stream) {}
  virtual void destroy_graph(Graph) noexcept {}
  /// Calls `work` on the host when the stream reaches this point, and again at every replay of a recording that holds it.
  /// It may read and write the device's memory only where that is host memory. `name` is for messages. Throws
  /// Error{device} where the device cannot.
  virtual void call_host(Stream s, const char* name, std::function<void()> work);
  /// One line for people: model, cores or SMs, memory, instruction sets.
  virtual std::string describe() const = 0;

  /// An event that also keeps the moment at which its stream reached its latest record. Not inside a recording. Throws
  /// Error{device} where the device cannot.
  virtual Event create_timed_event();
  /// Seconds from one timed event to another, below 0 where the second came first. Both were recorded and have been reached:
  /// synchronise before.
  virtual double seconds_between(Event from, Event to);
};

struct KernelTable;
struct Ladders;
/// The table and the runtime of a device. Both throw Error{device} with the list of what exists when it is absent.
const KernelTable& kernels(Device device);
DeviceRuntime& runtime(Device device);

/// The device's teaching ladders (ladder.h), or null.
const Ladders* ladders(Device device);

/// Adds a device at run time (cuda/ and tests). The objects must outlive every tensor on the device.
void register_device(Device device, const KernelTable* table, DeviceRuntime* runtime, const Ladders* ladders = nullptr);
/// Says why no device of this kind is there, for messages and `evergrad info`.
void register_absence(DeviceType type, const std::string& why);
/// Empty where one is registered, and where nobody said why.
std::string why_absent(DeviceType type);
/// All that are registered, host devices first.
std::vector<Device> devices();

}  // namespace eg
