// tests/emulated/test_streams.cpp - streams, events, recordings and settings of the emulated device.
#include <chrono>
#include <functional>
#include <thread>

#include "cuda/emulated/heap.h"
#include "tests/emulated/arrays.h"

namespace eg::emulated_backend {
namespace {

constexpr std::size_t kN = 128;

void add(const Array<float>& from, const Array<float>& to, float value, Stream s) {
  launch("add", add_probe(), dim3(unsigned(kN / 64)), dim3(64), 0, s, AddProbe{from.data(), to.data(), value});
}

#if defined(EVERGRAD_VARIANT_RACE)
constexpr bool kRace = true;
#else
constexpr bool kRace = false;
#endif

/// Two streams: x = 1 on one, y = x + 1 on the other, with or without waiting; returns y[0], or -1 after a fault.
float two_streams(bool waits, std::uint64_t seed) try {
  emulated::settings().lazy = true, emulated::settings().stream_seed = seed;
  const Array<float> zero(kN), x(kN), y(kN);
  const Stream a = device().create_stream(), b = device().create_stream();
  const Event e = device().create_event();
  add(zero, x, 1.0f, a);
  if (waits) device().record(e, a), device().wait(b, e);
  add(x, y, 1.0f, b);
  device().synchronize(a);
  device().synchronize(b);
  const float result = y.values(b)[0];
  device().destroy_event(e);
  device().destroy_stream(a), device().destroy_stream(b);
  return result;
} catch (const Error& e) {
  CHECK_MESSAGE(has(e.what(), "unordered with add"), e.what());
  return -1.0f;
}

}  // namespace

TEST_CASE("streams: a missing wait shows within forty seeds, a wait always holds") {
  const Restore restore;
  int seen = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CHECK(two_streams(true, seed) == 2.0f);
    seen += two_streams(false, seed) != 2.0f;
  }
  CHECK((kRace ? seen == 40 : seen > 0));  // the race build does not need luck
}

TEST_CASE("streams: a host that reads before it waits shows within forty seeds") {
  const Restore restore;
  int seen = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    emulated::settings().lazy = true, emulated::settings().stream_seed = seed;
    const Array<float> zero(kN), x(kN);
    add(zero, x, 3.0f, {});
    float early = -1.0f;
    device().copy_to_host(&early, x.data(), sizeof early, {});
    seen += early != 3.0f;
    device().synchronize({});
    CHECK(early == 3.0f);
  }
  CHECK(seen > 0);
}

TEST_CASE("streams: a recording gives what launching gives, again and again, in every order that its waits allow") {
  const Restore restore;
  for (const bool lazy : {false, true})
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      emulated::settings().lazy = lazy, emulated::settings().stream_seed = seed;
      const Array<float> x(kN), y(kN), z(kN);
      const Stream side = device().create_stream();
      const Event begun = device().create_event(), done = device().create_event();
      const auto body = [&] {  // x += 1; beside each other y = x + 10 and z = x + 100; then x = y + z by two steps
        add(x, x, 1.0f, {});
        device().record(begun, {}), device().wait(side, begun);
        add(x, y, 10.0f, side);
        add(x, z, 100.0f, {});
        device().record(done, side), device().wait({}, done);
        add(y, x, 0.5f, {});
      };
      body();
      Graph graph;
      REQUIRE(device().capture({}, body, &graph));
      device().synchronize({});
      CHECK(x.values()[5] == 11.5f);  // capturing runs nothing
      for (int i = 0; i < 3; ++i) device().replay(graph, {});
      CHECK(x.values()[5] == 4.0f * 11.5f);
      CHECK(z.values()[5] == 3.0f * 11.5f + 101.0f);
      device().destroy_graph(graph);
      device().destroy_event(begun), device().destroy_event(done);
      device().destroy_stream(side);
    }
}

TEST_CASE("streams: what cannot be recorded is refused with a remedy, and the recording ends") {
  const Restore restore;
  float host[4] = {};
  const Array<float> y(kN);
  void* const block = device().allocate(64);
  const Event timed = device().create_timed_event();
  struct Row {
    std::function<void()> body;
    const char *what, *remedy;
  };
  const Row rows[] = {
      {[] { device().allocate(64); }, "an allocation of 64 bytes", "from the device's pool"},
      {[&] { device().copy_from_host(y.data(), host, sizeof host, {}); }, "a copy from the host of 16 bytes", "before"},
      {[&] { device().copy_to_host(host, y.data(), sizeof host, {}); }, "a copy to the host of 16 bytes", "when the"},
      {[] { device().synchronize({}); }, "waiting for the device", "another's event"},
      {[&] { device().release(block); }, "the release of a device block", "keep the tensor"},
      {[] {
         Graph second;
         device().capture(
             {}, [] {}, &second);
       },
       "a second recording", "end the first"},
      {[&] { device().record(timed, {}); }, "a timed event", "a step that is not recorded"},
  };
  for (const bool lazy : {false, true})
    for (const Row& row : rows) {
      if (lazy && row.what == rows[4].what) continue;  // the block is gone
      emulated::settings().lazy = lazy;
      CAPTURE(std::string(row.what));
      Graph graph;
      const std::string text = error_of([&] { device().capture({}, row.body, &graph); });
      CHECK_MESSAGE(has(text, row.what), text);
      CHECK_MESSAGE(has(text, row.remedy), text);
      CHECK(graph.handle == nullptr);
      const Array<float> x(kN);
      add(x, x, 1.0f, {});
      CHECK(x.values()[0] == 1.0f);
    }
  device().destroy_event(timed);
}

TEST_CASE("streams: a timed event keeps the moment at which its stream came by, not that of its record") {
  const Restore restore;
  constexpr auto kNap = std::chrono::milliseconds(40);
  constexpr double nap = 0.04;
  const Stream side = device().create_stream();
  const Event before = device().create_timed_event(), after = device().create_timed_event(),
              plain = device().create_event(), elsewhere = device().create_timed_event();
  for (const bool lazy : {false, true}) {
    emulated::settings().lazy = lazy;
    CAPTURE(lazy);
    // The host sleeps between two records: eager streams are as slow, lazy ones pass both when the host waits. There it sleeps longer
    // than a busy machine keeps a thread from running.
    device().record(before, {});
    std::this_thread::sleep_for(lazy ? std::chrono::milliseconds(800) : kNap);
    device().record(after, {});
    device().synchronize({});
    const double apart = device().seconds_between(before, after);
    CHECK((lazy ? apart < 0.8 : apart >= nap));
    CHECK(apart >= 0.0);
    CHECK(device().seconds_between(after, before) == -apart);
    // Work sleeps between them, and another stream waits for it.
    device().record(before, {});
    device().call_host({}, "work", [&] { std::this_thread::sleep_for(kNap); });
    device().record(plain, {}), device().wait(side, plain);
    device().record(elsewhere, side);
    device().synchronize(side);
    CHECK(device().seconds_between(before, elsewhere) >= nap);
  }
  const Event never = device().create_timed_event();
  CHECK(has(error_of([&] { device().seconds_between(before, never); }), "no stream has reached"));
  CHECK(has(error_of([&] { device().seconds_between(plain, before); }), "keeps none"));
  device().record(after, {});  // lazy: enqueued only
  CHECK(has(error_of([&] { device().seconds_between(before, after); }), "synchronize()"));
  device().synchronize({});
  for (const Event e : {before, after, plain, elsewhere, never}) device().destroy_event(e);
  device().destroy_stream(side);
}

TEST_CASE("streams: a block that is released while a step is recorded stays until the recording has ended") {
  const Restore restore;
  const std::int64_t before = std::int64_t(emulated::Heap::instance().bytes_live());
  const Array<float> x(kN);
  void* const block = device().allocate(kN * sizeof(float));
  bool held = false;
  const std::string text = error_of([&] {
    Graph graph;
    device().capture(
        {},
        [&] {
          device().set_zero(block, kN * sizeof(float), {});
          device().release(block);
          held = emulated::Heap::instance().holds(block, kN * sizeof(float));
        },
        &graph);
  });
  CHECK(has(text, "release"));
  CHECK(held);
  CHECK(std::int64_t(emulated::Heap::instance().bytes_live()) == before + std::int64_t(x.bytes()));
}

TEST_CASE("streams: another thread allocates, copies and waits while a step is recorded") {
  Graph graph;
  const Array<float> x(kN);
  std::string text;
  std::thread other;
  CHECK(device().capture(
      {},
      [&] {
        other = std::thread([&] { text = error_of([] { const Array<float> y(std::vector<float>(kN, 1.0f)); }); });
        add(x, x, 1.0f, {});
      },
      &graph));
  other.join();
  CHECK(text == "no error");
  device().destroy_graph(graph);
}

TEST_CASE("streams: a fault in one launch is told at the next wait, and later work runs") {
  const Restore restore;
  for (const bool lazy : {false, true}) {
    emulated::settings().lazy = lazy;
    const Array<float> x(kN);
    const std::string text = error_of([&] {
      launch("add", add_probe(), dim3(1), dim3(1025), 0, {}, AddProbe{x.data(), x.data(), 1.0f});
    });
    CHECK(has(text, "add"));
    add(x, x, 2.0f, {});
    CHECK(x.values()[0] == 2.0f);
  }
}

TEST_CASE("settings: what EVERGRAD_EMULATED may say, and what is told of everything else") {
  const emulated::Settings s = emulated::parse_settings("workers=2,schedule=random:7,streams=lazy:3");
  CHECK(s.workers == 2);
  CHECK(s.schedule.random);
  CHECK(s.schedule.seed == 7);
  CHECK(s.lazy);
  CHECK(s.stream_seed == 3);
  CHECK(s.shared_bytes == 227 * 1024);
  CHECK(emulated::parse_settings("shared=99").shared_bytes == 99 * 1024);
  CHECK_FALSE(s.library.has_value());
  CHECK(emulated::parse_settings("library=5").library == 5);
  const emulated::Settings none = emulated::parse_settings("");
  CHECK_FALSE(none.lazy);
  CHECK_FALSE(none.schedule.random);
  CHECK_FALSE(emulated::parse_settings("schedule=round-robin,streams=eager").schedule.random);
  for (const char* wrong : {"workers", "workers=", "workers=x", "workers=0", "workers=2000", "schedule=fair",
                            "schedule=round-robin:3", "streams=lazy:x", "streams=slow", "threads=2", "shared=47",
                            "shared=228", "shared=x", "library=", "workers=1;streams=lazy"}) {
    const std::string text = error_of([&] { emulated::parse_settings(wrong); });
    CAPTURE(std::string(wrong));
    CHECK(has(text, std::string("EVERGRAD_EMULATED=") + wrong));
  }
}

}  // namespace eg::emulated_backend
