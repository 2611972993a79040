// engine/device.cpp - the registry of devices, and the runtime that the two host devices share.
#include "engine/device.h"

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <thread>

#include "engine/cpu/features.h"
#include "engine/kernels.h"
#include "engine/parallel.h"

namespace eg {
namespace {

class HostRuntime final : public DeviceRuntime {
 public:
  explicit HostRuntime(bool fast) : fast_(fast) {}
  void* allocate(std::size_t bytes) override {
    if (bytes == 0) return nullptr;
    // 64 bytes is a cache line and an AVX-512 register; large blocks start on a page so that they may use huge pages.
    const std::size_t alignment = bytes >= (std::size_t(1) << 21) ? 4096 : 64;
    void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    check(block != nullptr, Kind::memory, [&] {
      return cat("out of host memory: ", bytes, " bytes (", bytes >> 20,
                 " MiB) were refused; use a smaller --batch or model");
    });
    return block;
  }
  void release(void* block) noexcept override { std::free(block); }
  void copy_from_host(void* to, const void* from, std::size_t bytes, Stream) override { move(to, from, bytes); }
  void copy_to_host(void* to, const void* from, std::size_t bytes, Stream) override { move(to, from, bytes); }
  void copy_within(void* to, const void* from, std::size_t bytes, Stream) override { move(to, from, bytes); }
  void set_zero(void* block, std::size_t bytes, Stream) override {
    if (bytes) std::memset(block, 0, bytes);
  }
  void synchronize(Stream) override {}
  // What a stream would reach here is reached at once. Events without a time need nothing and have no handle.
  Event create_timed_event() override { return {new Moment}; }
  void destroy_event(Event e) noexcept override { delete static_cast<Moment*>(e.handle); }
  void record(Event e, Stream) override {
    if (e.handle) *static_cast<Moment*>(e.handle) = std::chrono::steady_clock::now();
  }
  double seconds_between(Event from, Event to) override {
    return std::chrono::duration<double>(*static_cast<Moment*>(to.handle) - *static_cast<Moment*>(from.handle)).count();
  }
  void call_host(Stream, const char*, std::function<void()> work) override { work(); }
  std::string describe() const override {
    if (!fast_) return "plain loops in double precision, the oracle";
    return cat(cpu::describe_features(), ", ", num_threads(), " of ", std::thread::hardware_concurrency(), " threads");
  }

 private:
  using Moment = std::chrono::steady_clock::time_point;
  static void move(void* to, const void* from, std::size_t bytes) {
    if (bytes) std::memmove(to, from, bytes);
  }
  bool fast_;
};

struct Entry {
  Device device;
  const KernelTable* table;
  DeviceRuntime* runtime;
  const Ladders* ladders = nullptr;
};

struct Registry {
  std::mutex mutex;
  std::vector<Entry> entries;
  std::map<DeviceType, std::string> absent;  // kinds of which there is none, and why
  Registry() {
    static HostRuntime reference(false), cpu(true);
    entries = {{kCpu, &cpu_table(), &cpu}, {kReference, &reference_table(), &reference}};
  }
};

Registry& registry() {
  static Registry r;
  return r;
}

Entry find(Device device) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  for (const Entry& e : r.entries)
    if (e.device == device) return e;
  std::string have;
  for (const Entry& e : r.entries) have += (have.empty() ? "" : ", ") + to_string(e.device);
  const auto reason = r.absent.find(device.type);
  fail(Kind::device, cat("device ", device, " is ",
                         reason == r.absent.end() ? "not in this build or not on this machine" : reason->second,
                         "; available: ", have));
}

}  // namespace

void DeviceRuntime::call_host(Stream, const char* name, std::function<void()>) {
  fail(Kind::device,
       cat(name, ": this device (", describe(), ") does not call the host in stream order; ", "use cpu or emulated"));
}

Event DeviceRuntime::create_timed_event() {
  fail(Kind::device, cat("this device (", describe(), ") has no events that keep their time; use cpu or emulated"));
}

double DeviceRuntime::seconds_between(Event, Event) { return 0.0; }  // of events that nobody can have made

std::string to_string(Device device) {
  switch (device.type) {
    case DeviceType::reference: return "reference";
    case DeviceType::cpu: return "cpu";
    case DeviceType::emulated: return "emulated";
    case DeviceType::cuda: return cat("cuda:", device.index);
  }
  return "?";
}

Device parse_device(std::string_view text) {
  if (text == "cpu") return kCpu;
  if (text == "reference") return kReference;
  if (text == "emulated") return {DeviceType::emulated, 0};
  if (text == "cuda") return {DeviceType::cuda, 0};
  if (text.substr(0, 5) == "cuda:") {
    int index = 0;
    const auto [end, error] = std::from_chars(text.data() + 5, text.data() + text.size(), index);
    if (error == std::errc{} && end == text.data() + text.size() && index >= 0) return {DeviceType::cuda, index};
  }
  fail(Kind::usage, cat("unknown device '", text, "'; use cpu, reference, emulated or cuda:N"));
}

// The CPU is asked for in every kernel call, so the host devices skip the lock.
const KernelTable& kernels(Device device) {
  if (device == kCpu) return cpu_table();
  if (device == kReference) return reference_table();
  return *find(device).table;
}

DeviceRuntime& runtime(Device device) { return *find(device).runtime; }
const Ladders* ladders(Device device) { return find(device).ladders; }

void register_device(Device device, const KernelTable* table, DeviceRuntime* device_runtime,
                     const Ladders* device_ladders) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.absent.erase(device.type);
  for (Entry& e : r.entries)
    if (e.device == device) {
      e = {device, table, device_runtime, device_ladders};
      return;
    }
  r.entries.push_back({device, table, device_runtime, device_ladders});
}

void register_absence(DeviceType type, const std::string& why) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  for (const Entry& e : r.entries)
    if (e.device.type == type) return;
  r.absent[type] = why;
}

std::string why_absent(DeviceType type) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto reason = r.absent.find(type);
  return reason == r.absent.end() ? std::string() : reason->second;
}

std::vector<Device> devices() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  std::vector<Device> out;
  for (const Entry& e : r.entries) out.push_back(e.device);
  return out;
}

void detail::missing_kernel(Device device, const char* entry) {
  fail(Kind::device, cat("device ", device, " has no kernel '", entry, "'; run this part on cpu or reference"));
}

}  // namespace eg
