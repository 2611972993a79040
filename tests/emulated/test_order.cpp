// tests/emulated/test_order.cpp - two pieces of work that touch one place, and nothing that orders them: the race build finds
// that in every order in which streams may run, also where it did no harm; ordered work is silent in all builds.
#include <functional>

#include "cuda/table.h"
#include "engine/memory.h"
#include "tests/emulated/arrays.h"

namespace eg::emulated_backend {
namespace {

#if defined(EVERGRAD_VARIANT_RACE)
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif

constexpr std::size_t kN = 128;

/// Two streams and arrays; what `work` does on them is waited for at the end.
struct Place {
  Array<float> in{kN}, x{kN}, y{kN};
  Stream a = device().create_stream(), b = device().create_stream();
  Event e = device().create_event();
  Place() = default;
  Place(const Place&) = delete;
  ~Place() {
    device().destroy_event(e);
    device().destroy_stream(a), device().destroy_stream(b);
  }
  void add(const Array<float>& from, const Array<float>& to, Stream s) const { add(from.data(), to.data(), s); }
  void add(const float* from, float* to, Stream s) const {
    launch("add", add_probe(), dim3(unsigned(kN / 64)), dim3(64), 0, s, AddProbe{from, to, 1.0f});
  }
  void order(Stream first, Stream then) const { device().record(e, first), device().wait(then, e); }
};

/// Runs `work` on eager streams and on lazy ones of several seeds. Where it is `wrong`, the race build must say so each time, and
/// name both; `says` is part of that on eager streams.
void expect(bool wrong, const std::string& says, const std::function<void(const Place&)>& work) {
  const Restore restore;
  for (int seed = -1; seed < 6; ++seed) {
    emulated::settings().lazy = seed >= 0, emulated::settings().stream_seed = std::uint64_t(std::max(seed, 0));
    const Place place;
    const std::string text = error_of([&] {
      work(place);
      device().synchronize(place.a);
      device().synchronize(place.b);
    });
    CAPTURE(seed);
    INFO(text);
    if (wrong && kWatched) {
      CHECK(has(text, "unordered with"));
      CHECK(has(text, "wait for an event"));
      if (seed < 0) CHECK(has(text, says));  // eager: found in the order of the calls
    } else {
      CHECK(text == "no error");
    }
  }
}

}  // namespace

TEST_CASE("order: what another stream writes is read behind an event of that stream, recorded behind the writing") {
  expect(false, "", [](const Place& p) {
    p.add(p.in, p.x, p.a);
    p.order(p.a, p.b);
    p.add(p.x, p.y, p.b);
  });
  expect(true, "a read of what other work writes", [](const Place& p) {
    p.order(p.a, p.b);  // too early
    p.add(p.in, p.x, p.a);
    p.add(p.x, p.y, p.b);
  });
  // Through a third stream, and by the host.
  expect(false, "", [](const Place& p) {
    p.add(p.in, p.x, p.a);
    p.order(p.a, {});
    p.order({}, p.b);
    p.add(p.x, p.y, p.b);
  });
  expect(false, "", [](const Place& p) {
    p.add(p.in, p.x, p.a);
    device().synchronize(p.a);
    p.add(p.x, p.y, p.b);
  });
}

TEST_CASE("order: what another stream reads is not written before it, though a third has read it since") {
  const auto work = [](bool waits) {
    return [waits](const Place& p) {
      p.add(p.x, p.y, p.a);
      p.add(p.x, p.in, p.b);
      if (waits) p.order(p.a, p.b);
      device().set_zero(p.x.data(), p.x.bytes(), p.b);
    };
  };
  expect(false, "", work(true));
  expect(true, "setting to zero: race in device memory: a write over what other work reads", work(false));
}

TEST_CASE("order: copies and fills count like kernels") {
  std::vector<float> host(kN);
  const auto twice = [&](bool waits, const std::function<void(const Place&)>& first,
                         const std::function<void(const Place&)>& then) {
    expect(!waits, "", [&](const Place& p) {
      first(p);
      if (waits) p.order(p.a, p.b);
      then(p);
    });
  };
  for (const bool waits : {true, false}) {
    twice(
        waits, [](const Place& p) { device().set_zero(p.x.data(), p.x.bytes(), p.a); },
        [&](const Place& p) { device().copy_to_host(host.data(), p.x.data(), p.x.bytes(), p.b); });
    twice(
        waits, [&](const Place& p) { device().copy_from_host(p.x.data(), host.data(), p.x.bytes(), p.a); },
        [](const Place& p) { p.add(p.x, p.y, p.b); });
    twice(
        waits, [](const Place& p) { device().copy_within(p.x.data(), p.in.data(), p.x.bytes(), p.a); },
        [](const Place& p) { device().copy_within(p.x.data(), p.in.data(), p.x.bytes(), p.b); });
  }
}

TEST_CASE("order: branches of a recording are as unordered as streams, at every replay") {
  const auto work = [](bool joined) {
    return [joined](const Place& p) {
      Graph graph;
      device().capture(
          p.a,
          [&] {
            p.add(p.in, p.x, p.a);
            p.order(p.a, p.b);
            p.add(p.x, p.y, p.b);
            if (joined) p.order(p.b, p.a);
            p.add(p.in, p.y, p.a);
            if (!joined) p.order(p.b, p.a);
          },
          &graph);
      for (int i = 0; i < 2; ++i) device().replay(graph, p.a);
      p.add(p.y, p.x, p.a);
      device().synchronize(p.a);
      device().destroy_graph(graph);
    };
  };
  expect(false, "", work(true));
  expect(true, "two pieces of work write one place", work(false));
}

TEST_CASE("order: one recording that is played on two streams plays once at a time") {
  expect(false, "", [](const Place& p) {
    Graph graph;
    device().capture(
        p.a, [&] { p.add(p.in, p.x, p.a), p.add(p.x, p.y, p.a); }, &graph);
    device().replay(graph, p.a), device().replay(graph, p.b);
    device().synchronize(p.a), device().synchronize(p.b);
    device().destroy_graph(graph);
  });
}

TEST_CASE("order: after a fault, freeing a block waits for all that is left, and nothing of it races with later work") {
  const Restore restore;
  for (int seed = 0; seed < 6; ++seed) {
    emulated::settings().lazy = true, emulated::settings().stream_seed = std::uint64_t(seed);
    const Place p;
    // Two faults, on two streams, and work on a third that may still be waiting when the block goes.
    for (const Stream s : {p.a, p.b}) device().call_host(s, "work", [] { fail(Kind::internal, "a fault"); });
    p.add(p.in, p.x, {});
    device().release(device().allocate(64));
    CHECK(error_of([] { device().synchronize({}); }) == "a fault");
    CHECK(error_of([&] { p.add(p.x, p.y, p.a), device().synchronize(p.a); }) == "no error");
    CHECK(p.y.values(p.a)[0] == 2.0f);
  }
}

TEST_CASE("order: a block of a pool that another stream gets next is handed over by an event") {
  constexpr Device kEmulated{DeviceType::emulated, 0};
  register_device(kEmulated, &kernel_table(), &device());
  const auto pool = ActivationPool::make(kEmulated);
  const auto work = [&](bool waits) {
    return [&pool, waits](const Place& p) {
      const float* first = nullptr;
      {
        const Tensor t = pool->empty({std::int64_t(kN)}, DType::f32);
        first = t.data_as<float>();
        p.add(p.in.data(), t.data_as<float>(), {});
        p.add(t.data_as<float>(), p.x.data(), {});
      }
      const Tensor t = pool->empty({std::int64_t(kN)}, DType::f32);
      REQUIRE(t.data_as<float>() == first);
      if (waits) p.order({}, p.b);
      p.add(p.in.data(), t.data_as<float>(), p.b);
      device().synchronize({});
      device().synchronize(p.b);
    };
  };
  expect(false, "", work(true));
#if !defined(EVERGRAD_VARIANT_ASAN)  // which finds the block poisoned in some orders, and ends the program
  expect(true, "a block of a pool that another stream gets next", work(false));
#endif
}

}  // namespace eg::emulated_backend
