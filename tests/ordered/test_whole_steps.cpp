// tests/ordered/test_whole_steps.cpp - whole training steps under the race detector, which knows of every two pieces of work whether
// something orders them (cuda/emulated/order.h): nothing in a step races with the work of another stream, and without any single
// wait of one stream for another the detector finds a race, or the step cannot be recorded. Waits that nothing depends on are
// counted, with the reason.
#include "cuda/emulated/runtime.h"
#include "cuda/emulated/streams.h"
#include "cuda/table.h"
#include "engine/error.h"
#include "tests/apps/tiny_trainer.h"

namespace eg::test {
namespace {

constexpr Device kEmulated{DeviceType::emulated, 0};
constexpr int kSteps = 3;

/// The emulated device, which leaves out one wait of a stream for an event: the `forgotten`th from the last start().
class Forgetful final : public DeviceRuntime {
 public:
  void start(int forgotten) { waits_ = 0, forgotten_ = forgotten; }
  int waits() const { return waits_; }
  /// Waits for all streams, and throws what was found on any of them.
  void wait_for_all() {
    release(allocate(64));
    synchronize({});
  }

  void* allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  void release(void* block) noexcept override { inner_.release(block); }
  void copy_from_host(void* to, const void* from, std::size_t bytes, Stream s) override {
    inner_.copy_from_host(to, from, bytes, s);
  }
  void copy_to_host(void* to, const void* from, std::size_t bytes, Stream s) override {
    inner_.copy_to_host(to, from, bytes, s);
  }
  void copy_within(void* to, const void* from, std::size_t bytes, Stream s) override {
    inner_.copy_within(to, from, bytes, s);
  }
  void set_zero(void* block, std::size_t bytes, Stream s) override { inner_.set_zero(block, bytes, s); }
  void synchronize(Stream s) override { inner_.synchronize(s); }
  Stream create_stream() override { return inner_.create_stream(); }
  void destroy_stream(Stream s) noexcept override { inner_.destroy_stream(s); }
  Event create_event() override { return inner_.create_event(); }
  void destroy_event(Event e) noexcept override { inner_.destroy_event(e); }
  void record(Event e, Stream s) override { inner_.record(e, s); }
  void wait(Stream s, Event e) override {
    if (waits_++ != forgotten_) inner_.wait(s, e);
  }
  bool capture(Stream s, const std::function<void()>& body, Graph* g) override { return inner_.capture(s, body, g); }
  void replay(Graph g, Stream s) override { inner_.replay(g, s); }
  void destroy_graph(Graph g) noexcept override { inner_.destroy_graph(g); }
  void call_host(Stream s, const char* name, std::function<void()> work) override {
    inner_.call_host(s, name, std::move(work));
  }
  std::string describe() const override { return inner_.describe(); }

 private:
  DeviceRuntime& inner_ = emulated::emulated_runtime();
  int waits_ = 0, forgotten_ = -1;
};

Forgetful& device() {
  static Forgetful* const runtime = [] {
    auto* const made = new Forgetful;
    register_device(kEmulated, &emulated_backend::kernel_table(), made);
    return made;
  }();
  return *runtime;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// The first of two ranks, whose partner sends nothing: reads and writes what a collective reads and writes, in stream order.
class Alone final : public Collectives {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  bool deterministic() const override { return true; }
  std::string name() const override { return "alone"; }
  void all_reduce(void* data, std::int64_t count, DType dtype, Stream s) override { touch(data, count, dtype, s); }
  void reduce_scatter(void* data, std::int64_t count, DType dtype, Stream s) override { touch(data, count, dtype, s); }
  void all_gather(void* data, std::int64_t count, DType dtype, Stream s) override { touch(data, count, dtype, s); }
  void broadcast(void* data, std::int64_t bytes, int, Stream s) override {
    device().copy_within(data, data, std::size_t(bytes), s);
  }
  void barrier() override {}
  std::vector<std::string> all_gather_bytes(const std::string& mine) override { return {mine, mine}; }
  void sum_on_host(std::span<double>) override {}
  void abort(const std::string&) noexcept override {}

 private:
  static void touch(void* data, std::int64_t count, DType dtype, Stream s) {
    device().copy_within(data, data, std::size_t(count) * size_of(dtype), s);
  }
};

struct Way {
  const char* method;
  bool ranks;
  int zero;
  bool record;
  int waits, needless;  // from the second step on: how many there are, how many of them nothing depends on
};
// Needless are, of each step: ARROW's second wait where all gradients are summed at once, in one bucket, and nothing happens between
// the two; the gathering's wait for the update before it, where the host has waited for that already; and the upload's wait in the
// step that is recorded, since recording waits for the device.
const Way kWays[] = {
    {"adamw", false, 0, false, 4, 0},            // for the batch that is uploaded beside the step
    {"arrow:window=2", false, 0, false, 10, 0},  // and for the ring and Gram rows beside backward
    {"arrow:window=2", false, 0, true, 7, 1},   {"arrow:window=2", true, 1, false, 18, 4},  // and for gathered weights
    {"arrow:window=2", true, 1, true, 11, 2},
};

/// Trains a little, without the `forgotten`th wait of the second step on (-1: with all); a replay begins in the third. Returns what the
/// device said, or "", and how many waits there were.
std::pair<std::string, int> train(const Way& way, int forgotten) {
  const Images images;
  TrainerConfig config = tiny(way.method, kEmulated);
  config.vit.precision = DType::bf16;
  config.record_steps = way.record, config.zero = way.zero;
  if (way.ranks) config.ranks = std::make_shared<Alone>();
  device().start(-1);
  try {
    Trainer trainer(config);
    LoaderConfig c;
    c.format = {3, 8};
    c.batch = 8, c.epochs = 1, c.workers = 1, c.prefetch = 2;
    Loader loader(images.data, images.task.train, images.task.transform, c);
    for (int step = 0; step < kSteps; ++step) {
      const Batch* const batch = loader.next();
      const Batch* const next = ahead_of(loader);
      if (step == 1) device().start(forgotten);
      trainer.step(*batch, 1.0, {}, [&] { return next; });
    }
    device().wait_for_all();
  } catch (const Error& e) { return {e.what(), device().waits()}; }
  return {"", device().waits()};
}

}  // namespace

/// Puts the settings back at the end of a test.
struct Restore {
  emulated::Settings before = emulated::settings();
  Restore() { emulated::settings() = {}, emulated::settings().workers = 1; }
  ~Restore() { emulated::settings() = before; }
};

TEST_CASE(
    "whole steps: no two streams race, and every wait of one for another is missed, but for those that are listed") {
  const OneThread one;
  const Restore restore;
  for (const bool lazy : {false, true})
    for (const Way& way : kWays) {
      emulated::settings().lazy = lazy, emulated::settings().stream_seed = 2;
      CAPTURE(cat(way.method, way.ranks ? " ranks" : "", " zero ", way.zero, way.record ? " recorded" : "",
                  lazy ? " lazy" : ""));
      const auto [said, waits] = train(way, -1);
      CHECK(said == "");
      CHECK(waits == way.waits);  // more: the step was not recorded
      if (lazy) continue;         // what is found does not depend on it
      int needless = 0;
      std::string which;
      for (int i = 0; i < waits; ++i) {
        const auto [without, then] = train(way, i);
        // A step that cannot be recorded is launched each time, and so waits more often.
        const bool found = has(without, "unordered with") || (way.record && then > waits);
        if (!found) ++needless, which += cat(" ", i);
      }
      INFO("needless:", which);
      CHECK(needless == way.needless);
    }
}

TEST_CASE("whole steps: sums of gradients beside backward, a bucket for every block") {
  const Restore restore;
  const Images images;
  TrainerConfig config = tiny("adamw", kEmulated);
  device().start(-1);
  const Trainer trainer(config);
  const ParamArena& arena = trainer.arena();
  const Tensor read = Tensor::empty({arena.grad.size()}, DType::f32, kEmulated);
  const auto step = [&](bool narrow, bool own, int forgotten) {
    constexpr int kDepth = 2;
    try {
      device().wait_for_all();
    } catch (const Error&) {}  // of the step before
    device().start(forgotten);
    try {
      GradientBuckets buckets(trainer.params(), arena, kDepth, std::make_shared<Alone>(), 1, narrow);
      REQUIRE(buckets.buckets().size() == std::size_t(kDepth + 1));
      const auto for_ranges_of = [&](int group, const auto& f) {
        for (const GradientBuckets::Bucket& b : buckets.buckets())
          for (const GradientBuckets::Range& r : b.ranges)
            if (b.groups[0] == group) f(arena.grad.slice(r.begin, r.end - r.begin));
      };
      const auto observe = [&](int group, Stream s) {
        for_ranges_of(group, [&](const Tensor& t) { device().copy_within(read.data(), t.data(), t.bytes(), s); });
      };
      for (int steps = 0; steps < 2; ++steps) {
        device().set_zero(arena.grad.data(), arena.grad.bytes(), {});
        buckets.begin(own);
        for (int group = kDepth; group-- > 0;) {
          for_ranges_of(group, [](const Tensor& t) { device().set_zero(t.data(), t.bytes(), {}); });
          buckets.local_final(group, {}, observe);
        }
        for_ranges_of(kDepth, [](const Tensor& t) { device().set_zero(t.data(), t.bytes(), {}); });
        buckets.finish({}, observe);
        device().copy_within(read.data(), arena.grad.data(), arena.grad.bytes(), {});
      }
      device().wait_for_all();
    } catch (const Error& e) { return std::pair<std::string, int>{e.what(), device().waits()}; }
    return std::pair<std::string, int>{"", device().waits()};
  };
  for (int way = 0; way < 16; ++way) {
    const bool narrow = (way & 1) != 0, own = (way & 2) != 0;
    emulated::settings().lazy = way >= 4, emulated::settings().stream_seed = std::uint64_t(way / 4 - 1);
    CAPTURE(way);
    const auto [said, waits] = step(narrow, own, -1);
    CHECK(said == "");
    CHECK(waits >= 2 * 3);
    for (int i = 0; i < waits; ++i) {
      CAPTURE(i);
      CHECK(has(step(narrow, own, i).first, "unordered with"));
    }
  }
}

}  // namespace eg::test
