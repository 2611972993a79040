// What ranks tell each other over a store for as long as they train.
#include <doctest/doctest.h>

#include <future>
#include <thread>

#include "engine/collectives/meetings.h"
#include "engine/error.h"

using namespace eg;

TEST_CASE("meetings: everybody hears all texts of each meeting, and the store does not grow") {
  constexpr int kRanks = 3, kTimes = 300;
  auto stores = memory_stores(kRanks);
  std::vector<int> wrong(kRanks, 0);
  std::vector<std::thread> threads;
  for (int r = 0; r < kRanks; ++r)
    threads.emplace_back([&, r] {
      Meetings meetings(*stores[std::size_t(r)], "m");
      for (int i = 0; i < kTimes; ++i) {
        if (i % 7 == r) std::this_thread::sleep_for(std::chrono::microseconds(300));  // another one is late each time
        const std::string tail = i % 2 ? "" : std::string(3, '\0');
        const auto all = meetings.gather(cat(r, " at ", i, tail), within(60));
        for (int q = 0; q < kRanks; ++q) wrong[std::size_t(r)] += all[std::size_t(q)] != cat(q, " at ", i, tail);
      }
    });
  for (std::thread& t : threads) t.join();
  CHECK(wrong == std::vector<int>(kRanks, 0));
  CHECK(stores[0]->list("").size() == 2 * kRanks);
}

TEST_CASE("meetings: who does not come is named, and who failed ends the waiting") {
  auto stores = memory_stores(3);
  Meetings first(*stores[0], "m"), second(*stores[1], "m");
  const auto refused = [](Meetings& m, double seconds) {
    try {
      m.gather("", within(seconds));
    } catch (const Error& e) { return std::string(e.kind == Kind::io ? e.what() : "another kind of error"); }
    return std::string();
  };
  CHECK(refused(first, 0.05).find("rank 0: rank(s) 1, 2 of 3 have not come to meeting 1 of 'm'") != std::string::npos);
  auto waiting = std::async(std::launch::async, [&] { return refused(second, 60); });
  stores[2]->fail("rank 2 is out of memory");
  CHECK(waiting.get().find("rank 2 is out of memory") != std::string::npos);
}
