// What ranks conclude from each other's heartbeats, and what is left of a run that ended.
#include <doctest/doctest.h>

#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/collectives/watchdog.h"
#include "engine/error.h"
#include "engine/file.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;

namespace {

bool says(const std::optional<std::string>& text, const std::vector<std::string>& parts) {
  if (!text) return false;
  for (const std::string& part : parts) {
    if (text->find(part) != std::string::npos) continue;
    MESSAGE("expected '", part, "' in: ", *text);
    return false;
  }
  return true;
}

Beat beat(std::uint64_t number, std::uint64_t entered, double waiting, const std::string& name = "all_reduce f32") {
  Beat b;
  b.number = number, b.who = "pid 5 on host h";
  b.position = {entered, waiting > 0.0 ? entered - 1 : entered, name, 64, waiting};
  return b;
}

/// A collective that never ends, or throws.
class Broken : public Collectives {
 public:
  explicit Broken(bool throws) : throws_(throws) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  bool deterministic() const override { return true; }
  std::string name() const override { return "broken"; }
  void all_reduce(void*, std::int64_t, DType, Stream) override {
    if (throws_) fail(Kind::io, "the line is broken");
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
  }
  void reduce_scatter(void*, std::int64_t, DType, Stream) override {}
  void all_gather(void*, std::int64_t, DType, Stream) override {}
  void broadcast(void*, std::int64_t, int, Stream) override {}
  void barrier() override {}
  std::vector<std::string> all_gather_bytes(const std::string& mine) override { return {mine, mine}; }
  void abort(const std::string&) noexcept override {}

 private:
  bool throws_;
};

}  // namespace

TEST_CASE("flight recorder: the last 64, and where a rank is") {
  FlightRecorder r;
  CHECK(r.position().entered == 0);
  CHECK(r.json() == "[\n]");
  for (int i = 1; i <= 100; ++i) r.complete(r.enqueue("all_reduce f32", i));
  const auto list = r.entries();
  REQUIRE(list.size() == 64);
  CHECK(list.front().sequence == 37);
  CHECK(list.back().bytes == 100);
  CHECK(r.position().done == 100);
  CHECK(r.position().waiting == 0.0);
  const std::uint64_t graph = r.enqueue("step graph", 0, 12), next = r.enqueue("barrier", 0);
  CHECK(graph == 112);
  CHECK(next == 113);
  CHECK(r.position().done == 100);
  CHECK(r.position().name == "step graph");
  CHECK(r.position().waiting > 0.0);
  r.complete(next);  // out of order: the graph is still what it waits for
  CHECK(r.position().entered == 113);
  CHECK(r.position().done == 100);
  r.complete(graph);
  CHECK(r.position().done == 113);
  for (int i = 0; i < 70; ++i) r.enqueue("lost", 1);  // nothing completes
  CHECK(r.position().done == 119);                    // what fell out counts as complete
  const auto json = nlohmann::json::parse(r.json());
  REQUIRE(json.size() == 64);
  CHECK(json[0].at("sequence") == 120);
  CHECK(json[0].at("completed_s").is_null());
  CHECK(r.text().find("NOT COMPLETE") != std::string::npos);
}

TEST_CASE("heartbeat: a beat survives its text") {
  Beat b = beat(7, 12, 1.5, std::string("odd \"name\"\n"));
  b.left = true, b.busy = "saving a checkpoint";
  const auto read = beat_from(to_text(b));
  REQUIRE(read);
  CHECK(to_text(*read) == to_text(b));
  CHECK(read->position.waiting == doctest::Approx(1.5).epsilon(1e-6));
  CHECK_FALSE(beat_from(""));
  CHECK_FALSE(beat_from("garbage of some length"));
  CHECK_FALSE(beat_from(to_text(b).substr(0, 20)));
}

TEST_CASE("heartbeat: who is at fault") {
  Heartbeat h(0, 3, 0.0);
  for (int r = 0; r < 3; ++r) h.hear(r, beat(1, 4, 0.0), 1.0);
  CHECK_FALSE(h.verdict(10.0, 5.9));
  CHECK(says(h.verdict(10.0, 6.1), {"rank 1 (pid 5 on host h) has not been heard for 5.1 s", "rank 2",
                                    "its last was collective #4", "SIGSTOP"}));
  h.hear(1, beat(2, 4, 0.0), 6.0);
  h.hear(2, beat(1, 9, 0.0), 6.0);  // the same beat again is no news
  CHECK(says(h.verdict(10.0, 6.1), {"rank 2"}));
  CHECK(h.verdict(10.0, 6.1)->find("rank 1") == std::string::npos);

  Beat gone = beat(2, 4, 0.0);
  gone.left = true;
  h.hear(2, gone, 6.0);
  CHECK_FALSE(h.verdict(10.0, 10.9));  // it has left in good order
  h.hear(0, beat(3, 5, 8.7), 10.0);
  h.hear(1, beat(3, 5, 2.0), 10.0);
  CHECK_FALSE(h.verdict(10.0, 10.9));
  h.hear(0, beat(4, 5, 8.8), 10.0);
  CHECK(says(h.verdict(10.0, 10.9), {"rank 0 has waited 8.8 s in collective #5 (all_reduce f32, 64 bytes)",
                                     "deadline is 10.0 s", "rank 2", "has left"}));

  Heartbeat late(0, 3, 0.0);
  late.hear(0, beat(1, 5, 9.0), 9.0);
  late.hear(1, beat(1, 5, 4.0), 9.0);
  late.hear(2, beat(1, 4, 0.0), 9.0);
  CHECK(says(late.verdict(10.0, 9.0),
             {"rank 2 (pid 5 on host h) is alive but late", "its last was collective #4", "--step-deadline"}));
  late.hear(2, beat(2, 5, 0.1), 9.0);
  CHECK(says(late.verdict(10.0, 9.0), {"All ranks have entered it", "network or a device hangs"}));
  late.hear(2, beat(3, 5, 0.1, "barrier"), 9.0);
  CHECK(says(late.verdict(10.0, 9.0), {"different paths", "all_reduce f32", "rank 2", "barrier", "bug"}));
}

TEST_CASE("heartbeat: a rank that is busy outside of steps is waited for ten deadlines") {
  Heartbeat h(0, 2, 0.0);
  Beat busy = beat(1, 4, 0.0);
  busy.busy = "saving a checkpoint";
  h.hear(1, busy, 80.0);
  h.hear(0, beat(1, 5, 80.0), 80.0);
  CHECK_FALSE(h.verdict(10.0, 80.0));
  h.hear(0, beat(2, 5, 88.0), 80.0);
  CHECK(says(h.verdict(10.0, 80.0), {"rank 1 (pid 5 on host h) is alive but late (busy with saving a checkpoint)",
                                     "the deadline is 100.0 s"}));
  CHECK(says(h.verdict(10.0, 86.0), {"rank 1", "has not been heard"}));  // it must go on beating meanwhile
  busy.number = 2, busy.busy = "";
  h.hear(1, busy, 80.0);
  h.hear(0, beat(3, 5, 9.0), 80.0);
  CHECK(says(h.verdict(10.0, 80.0), {"is alive but late: it has not entered it"}));
}

TEST_CASE("heartbeat: a rank that never beat") {
  Heartbeat h(1, 2, 0.0);
  h.hear(1, beat(1, 0, 0.0), 0.0);
  CHECK_FALSE(h.verdict(10.0, 8.7));
  CHECK(says(h.verdict(10.0, 8.8), {"rank 0 was not heard at all for 8.8 s"}));
}

TEST_CASE("watchdog: deadlines, captured steps and counters of a device") {
  auto stores = memory_stores(1);
  std::atomic<std::uint64_t> on_device{0};
  Watchdog dog(std::move(stores[0]), {.device_progress = [&] { return on_device.load(); }});
  CHECK(dog.deadline() == 60.0);
  const auto ranks = watched(std::make_unique<Broken>(false), dog);
  ranks->broadcast(nullptr, 8, 0, {});
  ranks->barrier();  // of the host: complete on return
  CHECK(dog.recorder().entries()[0].completed < 0.0);
  CHECK(dog.recorder().entries()[1].completed >= 0.0);
  dog.capture_begins();
  ranks->broadcast(nullptr, 8, 0, {});
  ranks->all_gather(nullptr, 1, DType::f32, {});
  CHECK(dog.capture_ends() == 2);
  CHECK(dog.recorder().position().entered == 2);  // captured, not run
  dog.replayed(2);
  CHECK(dog.recorder().position().entered == 4);
  CHECK(dog.recorder().position().done == 0);
  const auto done_becomes = [&](std::uint64_t want) {
    for (const Deadline limit = within(30); !limit.over() && dog.recorder().position().done != want;)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return dog.recorder().position().done;
  };
  on_device = 1;
  CHECK(done_becomes(2) == 2);
  on_device = 2;  // half of the step
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(dog.recorder().position().done == 2);
  on_device = 3;
  CHECK(done_becomes(4) == 4);
  dog.step();
  dog.step();
  CHECK(dog.deadline() == 60.0);  // twenty short steps are less
  auto more = memory_stores(1);
  CHECK_THROWS_AS(Watchdog(std::move(more[0]), {.step_deadline = -1.0}), Error);
}

TEST_CASE("watchdog: a verdict ends both ranks, once, with the reason of the first") {
  auto stores = memory_stores(2);
  std::promise<std::string> first, second;
  Watchdog a(stores[0]->second(), {.step_deadline = 0.4, .on_failure = [&](const std::string& why) {
                                     first.set_value(why);
                                     stores[0]->fail(why);
                                   }});
  Watchdog b(stores[1]->second(),
             {.step_deadline = 60.0, .on_failure = [&](const std::string& why) { second.set_value(why); }});
  const auto ranks = watched(std::make_unique<Broken>(false), a);
  // Rank 1 beats as rarely as its long deadline says, so it is silent or late in rank 0's eyes: named either way.
  ranks->all_reduce(nullptr, 16, DType::f32, {});
  const std::string why = first.get_future().get();
  CHECK(says(why, {"rank 1"}));
  CHECK(second.get_future().get() == why);
}

TEST_CASE("watchdog: an error that was caught tells the others why, once the run folder is known") {
  const TemporaryFolder folder;
  auto stores = memory_stores(2);
  std::promise<std::string> heard;
  Watchdog mine(stores[0]->second(), {.step_deadline = 8.0, .on_failure = [](const std::string&) {}});
  Watchdog other(stores[1]->second(),
                 {.step_deadline = 8.0, .on_failure = [&](const std::string& why) { heard.set_value(why); }});
  mine.write_into(folder.path());
  mine.failed("the disk is full");
  CHECK(says(heard.get_future().get(), {"rank 0 (pid", "ended with an error: the disk is full"}));
  CHECK(says(read_file(folder / "flight-rank-0.json"), {"the disk is full"}));

  auto others = memory_stores(2);
  Watchdog early(others[0]->second(), {.step_deadline = 8.0, .on_failure = [](const std::string&) {}});
  early.failed("no such file");  // nothing has begun, and nobody's folder is written into
  CHECK_FALSE(others[1]->trouble());
}

TEST_CASE("watchdog: what its decorator is asked for, and what stands in the recorder") {
  auto stores = memory_stores(1);
  Watchdog dog(stores[0]->second(), {.step_deadline = 60.0});
  const auto ranks = watched(single_rank(), dog);
  CHECK(watchdog_of(*ranks) == &dog);
  CHECK(watchdog_of(*single_rank()) == nullptr);
  double values[] = {1.0, 2.0};
  ranks->sum_on_host(values);
  REQUIRE(dog.recorder().entries().size() == 1);
  CHECK(dog.recorder().entries()[0].name == "sum_on_host");
  CHECK(dog.recorder().entries()[0].bytes == 16);
  CHECK(dog.recorder().position().done == 1);
}

TEST_CASE("watchdog: an error on its way leaves the recorder and tells the others") {
  const TemporaryFolder folder;
  auto stores = memory_stores(2);
  CHECK_THROWS_WITH(
      [&] {
        Watchdog dog(stores[0]->second(), {.step_deadline = 1.0, .run_folder = folder.path()});
        watched(std::make_unique<Broken>(true), dog)->all_reduce(nullptr, 16, DType::f32, {});
      }(),
      "the line is broken");
  CHECK(says(stores[1]->trouble(), {"rank 0", "ended with an error"}));
  const auto json = nlohmann::json::parse(read_file(folder / "flight-rank-0.json"));
  CHECK(json.at("rank") == 0);
  CHECK(json.at("collectives")[0].at("name") == "all_reduce f32");
  CHECK(json.at("collectives")[0].at("bytes") == 64);
}
