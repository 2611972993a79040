// cuda/emulated/runtime.cpp - DeviceRuntime of the emulated device.
#include "cuda/emulated/runtime.h"

#include <cstring>

#include "cuda/emulated/heap.h"
#include "cuda/emulated/streams.h"
#include "cuda/recording.h"
#include "engine/allocations.h"
#include "engine/error.h"

namespace eg::emulated {
namespace {

class Runtime final : public DeviceRuntime {
 public:
  void* allocate(std::size_t bytes) override {
    settings();  // the first use of the device: a wrong EVERGRAD_EMULATED is told here, not where nothing may throw
    if (bytes == 0) return nullptr;
    refuse_in_recording(kAllocation, bytes);
    count_device_allocation();
    return heap().allocate(bytes);
  }
  void release(void* block) noexcept override {
    if (!block || keep_in_recording(*this, block)) return;
    if (settings().lazy || watcher) streams().finish_quietly();  // freeing waits for the device, as on CUDA
    heap().release(block);
  }
  void copy_from_host(void* device, const void* host, std::size_t bytes, Stream s) override {
    if (bytes == 0) return;
    refuse_in_recording(kCopyFromHost, bytes);
    check_device(device, bytes, "a copy to the device");
    check_host(host, "a copy to the device");
    // The host's memory is pageable: it is read now, as CUDA does.
    auto data = std::make_shared<std::vector<std::byte>>(static_cast<const std::byte*>(host),
                                                         static_cast<const std::byte*>(host) + bytes);
    streams().enqueue(s, {"copy to the device", [device, data] {
                            watch("a copy to the device", device, data->size(), true);
                            std::memcpy(device, data->data(), data->size());
                          }});
  }
  void copy_to_host(void* host, const void* device, std::size_t bytes, Stream s) override {
    if (bytes == 0) return;
    refuse_in_recording(kCopyToHost, bytes);
    check_device(device, bytes, "a copy to the host");
    check_host(host, "a copy to the host");
    streams().enqueue(s, {"copy to the host", [=] {
                            watch("a copy to the host", device, bytes, false);
                            std::memcpy(host, device, bytes);
                          }});
  }
  void copy_within(void* to, const void* from, std::size_t bytes, Stream s) override {
    if (bytes == 0) return;
    check_device(to, bytes, "a copy on the device");
    check_device(from, bytes, "a copy on the device");
    streams().enqueue(s, {"copy on the device", [=] {
                            watch("a copy on the device", from, bytes, false);
                            watch("a copy on the device", to, bytes, true);
                            std::memmove(to, from, bytes);
                          }});
  }
  void set_zero(void* block, std::size_t bytes, Stream s) override {
    if (bytes == 0) return;
    check_device(block, bytes, "setting to zero");
    streams().enqueue(s, {"set to zero", [=] {
                            watch("setting to zero", block, bytes, true);
                            std::memset(block, 0, bytes);
                          }});
  }
  void synchronize(Stream s) override {
    refuse_in_recording(kWaiting);
    streams().synchronize(s);
  }
  Stream create_stream() override { return {streams().create()}; }
  void destroy_stream(Stream s) noexcept override {
    if (s.handle) streams().destroy(static_cast<StreamState*>(s.handle));
  }
  Event create_event() override { return {new EventOwner(std::make_shared<EventState>())}; }
  Event create_timed_event() override {
    const Event e = create_event();
    state(e)->timed = true;
    return e;
  }
  void destroy_event(Event e) noexcept override { delete static_cast<EventOwner*>(e.handle); }
  void record(Event e, Stream s) override {
    if (state(e)->timed) refuse_in_recording(kTimedEvent);
    streams().record(state(e), s);
  }
  void wait(Stream s, Event e) override { streams().wait(s, state(e)); }
  double seconds_between(Event from, Event to) override {
    for (const Event e : {from, to})
      check(state(e)->timed && state(e)->ticket > 0 && state(e)->reached == state(e)->ticket, Kind::usage, [&] {
        return cat("the time of an event that ", !state(e)->timed ? "keeps none" : "no stream has reached",
                   "; create_timed_event(), record() and synchronize() come before");
      });
    return std::chrono::duration<double>(state(to)->moment - state(from)->moment).count();
  }
  void call_host(Stream s, const char* name, std::function<void()> work) override {
    streams().enqueue(s, {name, std::move(work)});
  }
  bool capture(Stream s, const std::function<void()>& body, Graph* graph) override {
    auto state = std::make_unique<GraphState>();
    record_under_rules([&] { streams().capture(s, body, *state); });
    graph->handle = state.release();
    return true;
  }
  void replay(Graph g, Stream s) override { streams().replay(*static_cast<GraphState*>(g.handle), s); }
  void destroy_graph(Graph g) noexcept override { delete static_cast<GraphState*>(g.handle); }
  std::string describe() const override {
    const Settings& s = settings();
    return cat("CUDA kernels on this processor, for tests and debugging: ",
               s.schedule.random ? "random" : "round-robin", " threads, ", s.lazy ? "lazy" : "eager", " streams");
  }

 private:
  using EventOwner = std::shared_ptr<EventState>;  // queued work may outlive the handle
  static EventOwner& state(Event e) { return *static_cast<EventOwner*>(e.handle); }
  static Streams& streams() { return Streams::instance(); }
  static Heap& heap() { return Heap::instance(); }
  static void watch(const char* name, const void* p, std::size_t bytes, bool is_write) {
    if (watcher) watcher->operation(name, p, bytes, is_write);
  }
  static void check_host(const void* p, const char* what) {
    check(!heap().in_range(p), Kind::internal,
          [&] { return cat(what, ": the host side lies in device memory, ", heap().describe(p)); });
  }
  static void check_device(const void* p, std::size_t bytes, const char* what) {
    check(heap().holds(p, bytes), Kind::internal,
          [&] { return cat(what, " of ", bytes, " bytes leaves device memory: the address is ", heap().describe(p)); });
  }
};

}  // namespace

DeviceRuntime& emulated_runtime() {
  static Runtime* const r = new Runtime;
  return *r;
}

}  // namespace eg::emulated
