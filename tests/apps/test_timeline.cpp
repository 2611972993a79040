// tests/apps/test_timeline.cpp - where the time of a step goes: by hand, over two ranks, and by `bench --trace`.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "apps/bench/step_trace.h"
#include "apps/trainer.h"
#include "engine/collectives/loopback.h"
#include "engine/parallel.h"
#include "tests/apps/command.h"

using namespace eg;

namespace {

constexpr int kClasses = 4, kDepth = 3, kSteps = 3;

Span part(StepPart p, double begin, double end, int group = -1) {
  Span s;
  s.kind = Span::Kind::part, s.part = p, s.begin = begin, s.end = end, s.group = group;
  return s;
}
Span sum(double begin, double end, bool blocks, int bucket = -1, int range = -1) {
  Span s;
  s.kind = Span::Kind::collective, s.name = "all_reduce", s.begin = begin, s.end = end, s.blocks = blocks;
  s.bytes = 100.0, s.passes = 2, s.bucket = bucket, s.range = range;
  return s;
}
Span step(double begin, double end) {
  Span s;
  s.begin = begin, s.end = end;
  return s;
}
bool close(double a, double b) { return std::abs(a - b) <= 1e-9; }

/// On every row of every process, two events are apart or one is inside the other; to a hundredth of a nanosecond, what printing
/// microseconds may cost.
void check_nesting(const nlohmann::json& trace) {
  std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> rows;
  for (const auto& e : trace.at("traceEvents"))
    if (e.at("ph") == "X") rows[{e.at("pid"), e.at("tid")}].emplace_back(e.at("ts"), e.at("dur"));
  CHECK(rows.size() >= 2);
  for (auto& row : rows) {
    CAPTURE(row.first.first);
    CAPTURE(row.first.second);
    auto& events = row.second;
    std::sort(events.begin(), events.end(), [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first < b.first : a.second > b.second;
    });
    std::vector<double> open;  // ends
    for (const auto& [begin, duration] : events) {
      CHECK(duration >= 0.0);
      while (!open.empty() && open.back() <= begin + 1e-5) open.pop_back();
      if (!open.empty()) CHECK(begin + duration <= open.back() + 1e-5);
      open.push_back(begin + duration);
    }
  }
}

struct Traced {
  StepTrace trace;
  std::vector<double> weights;
};

/// kSteps of training on two loopback ranks, with a timeline or without.
Traced train(bool traced, int zero = 0) {
  Traced all;
  all.trace.ranks.resize(2);
  std::mutex mutex;
  const auto data = std::shared_ptr<const Dataset>(make_procedural({.classes = kClasses, .train_per_class = 16}));
  const Task task = whole_dataset(*data, kClasses);
  run_loopback(2, [&](std::shared_ptr<Collectives> ranks) {
    Timeline timeline(kCpu);
    TrainerConfig c;
    c.vit = vit_config("vit-ti", 8, 4, 16, kDepth, 2);
    c.vit.classes = kClasses;
    c.device = kCpu, c.method = parse_method("arrow:window=2"), c.zero = zero;
    c.mean = {0.5, 0.5, 0.5}, c.stddev = {0.25, 0.25, 0.25};
    c.ranks = traced ? timeline.traced(ranks) : ranks;
    if (traced) c.listener = &timeline;
    Trainer trainer(c);
    timeline.name_buckets(trainer.buckets().buckets(), trainer.arena().grad, trainer.arena().master);
    LoaderConfig lc;
    lc.format = {3, 8}, lc.batch = 8, lc.workers = 0, lc.rank = ranks->rank(), lc.ranks = 2;
    Loader loader(data, task.train, task.transform, lc);
    trainer.step(*loader.next(), 1.0);  // outside of begin_step: leaves nothing
    ranks->barrier();
    timeline.start();
    for (int i = 0; i < kSteps; ++i) {
      timeline.begin_step();
      timeline.begin(StepPart::data, {});
      const Batch* const batch = loader.next();
      timeline.end(StepPart::data, -1, {});
      trainer.step(*batch, 1.0);
      timeline.end_step();
    }
    const std::lock_guard lock(mutex);
    all.trace.ranks[std::size_t(ranks->rank())] = spans_from_text(spans_to_text(timeline.spans()));
    all.trace.buckets = trainer.buckets().buckets(), all.trace.depth = kDepth;
    if (ranks->rank() == 0) all.weights = trainer.arena().master.to_host();
  });
  return all;
}

}  // namespace

TEST_CASE("timeline: exposed is what no part covers, and a part that waits does not work") {
  StepTrace t;
  t.depth = 2, t.buckets = {{{1}, {}}, {{0, 2}, {}}};
  // On a device with streams: the first sum is half behind backward, the second follows it.
  t.ranks = {{step(0, 20), part(StepPart::forward, 0, 4), part(StepPart::backward, 4, 8, 1), sum(8, 12, false, 0, 0),
              part(StepPart::backward, 8, 10, 0), sum(12, 15, false, 1, 0), part(StepPart::update, 15, 19),
              part(StepPart::finish, 19, 20), sum(19.25, 19.75, true)}};
  const StepTimes a = t.times(0, 0);
  CHECK(close(a.step, 20));
  CHECK(close(a.forward, 4));
  CHECK(close(a.backward, 6));
  CHECK(close(a.update, 4));
  CHECK(close(a.communication, 7.5));
  CHECK(close(a.exposed, 2 + 3 + 0.5));  // 'finish' waits for the last sum, and does not hide it

  // Two ranks: whoever is quicker at a sum tells what it takes; both ranges of bucket 1 are one sum.
  t.ranks.push_back(t.ranks[0]);
  for (Span& s : t.ranks[1])
    if (s.bucket == 0) s.begin = 11;
  for (auto& rank : t.ranks) rank.insert(rank.begin() + 6, sum(15, 15.5, false, 1, 1));
  const StepProfile p = t.profile();
  REQUIRE(p.buckets.size() == 2);
  CHECK(p.ranks == 2);
  CHECK(close(p.buckets[0].seconds, 1));
  CHECK(close(p.buckets[0].ready, 4));
  CHECK(close(p.buckets[1].seconds, 3.5));
  CHECK(close(p.buckets[1].ready, 6));
  CHECK(close(p.backward, 6));
  REQUIRE(p.others.size() == 1);
  CHECK(close(p.others[0].seconds, 0.5));
}

TEST_CASE("timeline: two ranks on the cpu, where every sum is exposed and every bucket comes once a step") {
  const int threads = num_threads();
  set_num_threads(1);
  const Traced traced = train(true), plain = train(false);
  set_num_threads(threads);
  CHECK(traced.weights == plain.weights);  // who watches changes nothing

  const StepTrace& t = traced.trace;
  REQUIRE(t.steps() == kSteps);
  REQUIRE(t.buckets.size() >= 2);
  for (int rank = 0; rank < 2; ++rank)
    for (int step = 0; step < kSteps; ++step) {
      const StepTimes s = t.times(rank, step);
      CHECK(s.exposed > 0.0);
      CHECK(s.exposed <= s.communication + 1e-12);
      CHECK(s.communication <= s.step);
      CHECK(close(s.exposed, s.communication));
      CHECK(s.data + s.forward + s.backward + s.update <= s.step + 1e-12);
      CHECK(std::min({s.forward, s.backward, s.update}) > 0.0);
    }

  const nlohmann::json trace = t.chrome();
  check_nesting(trace);
  std::map<std::tuple<int, int, int>, int> seen;  // rank, step, bucket
  std::map<std::string, int> names;
  for (const auto& e : trace.at("traceEvents")) {
    if (e.at("ph") != "X") continue;
    ++names[e.at("name")];
    if (e.at("args").value("bucket", -1) >= 0)
      ++seen[{e.at("pid"), e.at("args").at("step"), e.at("args").at("bucket")}];
  }
  CHECK(seen.size() == 2 * kSteps * t.buckets.size());
  for (const auto& [which, times] : seen) CHECK(times == 1);
  for (const char* name : {"forward", "backward", "update", "block 2", "block 0", "outside of blocks", "finish"}) {
    CAPTURE(name);
    CHECK(names[name] == 2 * kSteps);
  }
  CHECK(names["bucket 0: block 2, block 1"] == 2 * kSteps);

  const StepProfile p = t.profile();
  CHECK(p.step > 0.0);
  CHECK(p.measured >= p.step);
  for (std::size_t b = 0; b < p.buckets.size(); ++b) {
    CHECK(p.buckets[b].seconds > 0.0);
    CHECK(p.buckets[b].ready <= p.backward);
    if (b > 0) CHECK(p.buckets[b].ready >= p.buckets[b - 1].ready);
  }
  CHECK(p.others.size() >= 1);  // the loss, on the host
}

TEST_CASE("timeline: weights that are gathered beside forward are exposed while it waits for them") {
  StepTrace t;
  t.depth = 2, t.buckets = {{{1}, {}}, {{0, 2}, {}}};
  const auto gather = [](double begin, double end, int weights) {
    Span s = sum(begin, end, false);
    s.name = "all_gather", s.passes = 1, s.weights = weights;
    return s;
  };
  // The embedding's weights come at once, those of block 0 while it is computed, those of block 1 late.
  t.ranks = {{step(0, 20), gather(0, 1, 1), gather(1, 3, 1), gather(3, 8, 0), part(StepPart::forward, 0, 10),
              part(StepPart::wait, 0, 1, -1), part(StepPart::wait, 2, 3, 0), part(StepPart::wait, 6, 8, 1),
              part(StepPart::wait, 8, 8, 2), part(StepPart::backward, 10, 14, 1), sum(13, 16, false, 0, 0),
              part(StepPart::update, 16, 20)}};
  const StepTimes a = t.times(0, 0);
  CHECK(close(a.weights, 8));
  CHECK(close(a.weights_exposed, 1 + 1 + 2));
  CHECK(close(a.forward, 10 - 4));
  CHECK(close(a.communication, 8 + 3));
  CHECK(close(a.exposed, 4 + 2));
  std::vector<std::string> names;
  const nlohmann::json chrome = t.chrome();
  check_nesting(chrome);
  for (const auto& e : chrome.at("traceEvents"))
    if (e.at("ph") == "X") names.push_back(e.at("name"));
  for (const char* name : {"weights of bucket 0: block 1", "waits for the weights of the embedding",
                           "waits for the weights of block 1", "waits for the weights of the head"})
    CHECK(std::count(names.begin(), names.end(), name) == 1);
}

TEST_CASE("timeline: with --zero 1 every bucket is summed in one pass and its weights are gathered once a step") {
  const int threads = num_threads();
  set_num_threads(1);
  const Traced traced = train(true, 1), whole = train(true);
  set_num_threads(threads);
  const StepTrace& t = traced.trace;
  for (int rank = 0; rank < 2; ++rank)
    for (int step = 0; step < kSteps; ++step) {
      const StepTimes s = t.times(rank, step);
      CHECK(s.weights > 0.0);
      CHECK(close(s.weights_exposed, s.weights));  // on the cpu
      CHECK(s.weights < s.communication);
      CHECK(close(s.exposed, s.communication));
    }
  CHECK(whole.trace.times(0, 0).weights == 0.0);
  std::map<std::string, int> names;
  const nlohmann::json chrome = t.chrome();
  check_nesting(chrome);
  for (const auto& e : chrome.at("traceEvents")) ++names[e.at("name")];
  CHECK(names["weights of bucket 0: block 2, block 1"] == 2 * kSteps);
  CHECK(names["waits for the weights of block 1"] == 2 * kSteps);
  CHECK(names["all_gather"] == 0);
  for (const Message& m : t.profile().buckets) CHECK(m.passes == 1);
  for (const Message& m : whole.trace.profile().buckets) CHECK(m.passes == 2);
}

TEST_CASE("bench --trace: one rank writes a timeline that nests, and the scaling model reads it") {
  const TemporaryFolder folder;
  const auto trace = folder / "trace.json", json = folder / "scaling.json";
  const Ended e = evergrad(Args{"bench", "--trace", trace.string(), "--steps", "2", "--batch", "4", "--methods", "sgd",
                                "--precision", "fp32"} +
                           tiny_model());
  INFO(e.all());
  REQUIRE(e.code == 0);
  for (const char* word : {"communication", "exposed", "bucket 0", "1 rank, cpu"}) CHECK(contains(e.out, word));
  const nlohmann::json j = json_of(trace);
  check_nesting(j);
  CHECK(j.at("otherData").at("profile").at("ranks") == 1);
  CHECK(j.at("otherData").at("profile").at("backward_s") > 0.0);
  REQUIRE(j.at("otherData").at("ranks").size() == 1);
  CHECK(j.at("otherData").at("ranks")[0].at("exposed_s") == 0.0);

  const Ended s = evergrad({"bench", "--scaling", trace.string(), "--json", json.string(), "--scaling-ranks", "2,16"});
  INFO(s.all());
  REQUIRE(s.code == 0);
  CHECK(json_of(json).at("predictions").size() == 4);
  check_refused(evergrad({"bench", "--scaling", trace.string(), "--step-ms", "3"}), 2, {"give one of the two"});
  check_refused(evergrad({"bench", "--weak-scaling"}), 2, {"mpirun -n 2"});
  check_refused(evergrad(Args{"bench", "--trace", trace.string(), "--classes", "1", "--batch", "501"} + tiny_model()),
                2, {"needs 501 images, and the data set gave 500"});
}
