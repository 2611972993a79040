// tests/apps/test_scaling.cpp - the scaling model against cases that have a formula, and what `bench --scaling` accepts.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "apps/bench/scaling.h"
#include "apps/run/table.h"
#include "engine/error.h"
#include "tests/apps/command.h"

using namespace eg;

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
/// To a share of the second.
bool close(double a, double b, double share = 1e-9) { return std::abs(a - b) <= share * std::abs(b); }

constexpr SumBy kAll[] = {SumBy::deal, SumBy::ring, SumBy::tree};

Cluster free_of_charge() { return {8, {0.0, kNever}, {0.0, kNever}}; }

/// `count` equal buckets, each ready when its part of backward is over.
StepProfile even(int count, double step, double backward, double bytes) {
  StepProfile p;
  p.what = "even", p.device = "none", p.step = step, p.backward = backward;
  for (int i = 1; i <= count; ++i) p.buckets.push_back({bytes, 2, backward * i / count, 0.0});
  return p;
}

}  // namespace

TEST_CASE("scaling: sums that cost nothing leave the efficiency at 1") {
  const StepProfile p = even(6, 0.06, 0.04, 3e7);
  for (const int ranks : {1, 2, 8, 64, 1024})
    for (const SumBy by : kAll) {
      const Prediction r = predict(p, ranks, by, free_of_charge());
      CHECK(r.exposed == 0.0);
      CHECK(r.efficiency == 1.0);
      CHECK(r.without_overlap == 1.0);
    }
  CHECK(predict(p, 1, SumBy::deal, {8, {1.0, 1.0}, {1.0, 1.0}}).efficiency == 1.0);  // one rank sends nothing
}

TEST_CASE("scaling: what a sum costs, by formula") {
  const Link a{1e-5, 1e9}, b{1e-4, 1e8};
  const double bytes = 1e7;
  for (const SumBy by : kAll) CHECK(close(seconds_of(bytes, 2, 4, by, {8, a, b}), 2 * 3 * (1e-5 + bytes / 4 / 1e9)));
  CHECK(close(seconds_of(bytes, 1, 4, SumBy::ring, {8, a, b}), seconds_of(bytes, 2, 4, SumBy::ring, {8, a, b}) / 2));
  // Where both links are the same, dealing does not see nodes.
  CHECK(close(seconds_of(bytes, 2, 64, SumBy::deal, {8, a, a}), 2 * 63 * (1e-5 + bytes / 64 / 1e9)));
  // 2 nodes of 4: three messages inside, one of a quarter's half between; a tree sends the whole quarter.
  const double inside = 3 * (1e-5 + bytes / 4 / 1e9);
  CHECK(close(seconds_of(bytes, 2, 8, SumBy::ring, {4, a, b}), 2 * (inside + 1e-4 + bytes / 8 / 1e8)));
  CHECK(close(seconds_of(bytes, 2, 8, SumBy::tree, {4, a, b}), 2 * (inside + 1e-4 + bytes / 4 / 1e8)));
  // Many nodes and few bytes: a ring has 127 hops, a tree 7.
  CHECK(close(seconds_of(0.0, 2, 1024, SumBy::ring, {8, {0.0, 1e9}, b}), 2 * 127 * 1e-4));
  CHECK(close(seconds_of(0.0, 2, 1024, SumBy::tree, {8, {0.0, 1e9}, b}), 2 * 7 * 1e-4));
  CHECK_THROWS_WITH_AS(seconds_of(bytes, 2, 12, SumBy::ring, {8, a, b}), doctest::Contains("--scaling-ranks"), Error);
}

TEST_CASE("scaling: buckets hide behind backward, one after the other, and the rest is exposed") {
  const double step = 0.1, backward = 0.06;
  const int count = 6;  // one every 10 ms
  for (const double cost : {0.002, 0.010, 0.015, 0.1}) {
    CAPTURE(cost);
    // 2 ranks, no latency: a sum takes bytes / bandwidth.
    const Cluster c{8, {0.0, 1e9}, {0.0, 1e9}};
    const StepProfile p = even(count, step, backward, cost * 1e9);
    const Prediction r = predict(p, 2, SumBy::deal, c);
    // A link that is idle between buckets exposes the last sum; one that never is, all of them from the first bucket on.
    const double gap = backward / count;
    const double exposed = cost <= gap ? cost : gap + count * cost - backward;
    CHECK(close(r.exposed, exposed));
    CHECK(close(r.communication, count * cost));
    CHECK(close(r.efficiency, step / (step + exposed)));
    CHECK(close(r.without_overlap, step / (step + count * cost)));
  }
  // What is not a bucket waits for nobody's arithmetic.
  StepProfile p = even(count, step, backward, 0.0);
  p.others.push_back({1e7, 1, 0.0, 0.0});
  CHECK(close(predict(p, 2, SumBy::deal, {8, {0.0, 1e9}, {0.0, 1e9}}).exposed, 0.005));
}

TEST_CASE("scaling: faster links never hurt, and more ranks or latency never help") {
  const StepProfile p = even(7, 0.057, 0.036, 2.8e7);
  for (const SumBy by : kAll) {
    double before = 0.0;
    for (double speed = 1e8; speed < 1e13; speed *= 3) {
      const double now = predict(p, 64, by, {8, {4e-6, 10 * speed}, {1e-5, speed}}).efficiency;
      CHECK(now >= before);
      before = now;
    }
    CHECK(before > predict(p, 64, by, {8, {4e-6, 1e10}, {1e-5, 1e9}}).efficiency);
    before = 1.0;
    for (double latency = 0.0; latency < 1e-2; latency = latency * 3 + 1e-6) {
      const double now = predict(p, 64, by, {8, {latency, 4e11}, {latency, 5e10}}).efficiency;
      CHECK(now <= before);
      before = now;
    }
    before = 1.0;
    for (int ranks = 1; ranks <= 4096; ranks *= 2) {
      const double now = predict(p, ranks, by, {8, kNvlink, kAdapter}).efficiency;
      CHECK(now <= before);
      before = now;
    }
  }
}

TEST_CASE("scaling: measured sums give back the link that made them, and noise is told") {
  const Link link{3e-5, 2.5e9};
  StepProfile p = even(5, 0.1, 0.05, 0.0);
  p.ranks = 3;
  double bytes = 1e5;
  for (Message& m : p.buckets)
    m.bytes = bytes, bytes *= 3, m.seconds = seconds_of(m.bytes, 2, 3, SumBy::deal, {8, link, link});
  p.others.push_back({48.0, 1, 0.0, seconds_of(48.0, 1, 3, SumBy::deal, {8, link, link})});
  double worst = 1.0;
  Link found = fit_link(p, &worst);
  CHECK(close(found.latency, link.latency, 1e-6));
  CHECK(close(found.bytes_per_second, link.bytes_per_second, 1e-6));
  CHECK(worst < 1e-6);

  p.buckets[2].seconds *= 2;
  fit_link(p, &worst);
  CHECK(worst > 0.1);

  p.buckets.resize(1), p.others.clear();  // one size cannot tell latency from bandwidth
  found = fit_link(p, &worst);
  CHECK(found.latency == 0.0);
  CHECK(close(seconds_of(p.buckets[0].bytes, 2, 3, SumBy::deal, {8, found, found}), p.buckets[0].seconds));
  p.ranks = 1;
  CHECK_THROWS_WITH_AS(fit_link(p, &worst), doctest::Contains("--node-gb-per-s"), Error);
}

TEST_CASE("scaling: the line assumed for NVLink is within 15% of the published rates from 4 MiB on") {
  const double mib[] = {4, 16, 32, 64, 128, 256}, gb_per_s[] = {61, 126, 158, 198, 230, 249};
  for (int i = 0; i < 6; ++i) {
    const double bytes = mib[i] * (1 << 20), published = bytes / (gb_per_s[i] * 1e9);
    CHECK(close(seconds_of(bytes, 2, 8, SumBy::ring, {8, kNvlink, kAdapter}), published, 0.15));
  }
}

TEST_CASE("scaling: a profile survives its file, and a file that cannot be is refused") {
  StepProfile p = even(3, 0.1, 0.05, 1e6);
  p.ranks = 2, p.measured = 0.11, p.others.push_back({32.0, 1, 0.0, 1e-5});
  nlohmann::json file;
  file["otherData"]["profile"] = to_json(p);
  const StepProfile q = profile_from_json(file, "a.json");
  CHECK(to_json(q) == to_json(p));
  CHECK(q.buckets[1].ready == p.buckets[1].ready);
  CHECK_THROWS_WITH_AS(profile_from_json({{"traceEvents", nlohmann::json::array()}}, "b.json"),
                       doctest::Contains("b.json: not a file that evergrad bench --trace wrote"), Error);
  file["otherData"]["profile"]["backward_s"] = 0.2;  // longer than the step
  CHECK_THROWS_WITH_AS(profile_from_json(file, "c.json"), doctest::Contains("c.json"), Error);
}

TEST_CASE("bench --scaling: typed figures give a table and JSON; what is missing is named") {
  const TemporaryFolder folder;
  const auto json = folder / "scaling.json";
  const Args tiny = {"--dim", "16", "--depth", "4", "--heads", "1"};
  const Ended e =
      evergrad(Args{"bench", "--scaling", "--step-ms", "56.9", "--backward-ms", "36", "--json", json.string()} + tiny);
  INFO(e.all());
  REQUIRE(e.code == 0);
  for (const char* part : {"not measured here", "1024", "deal", "tree", "efficiency", "Predicted, not measured"})
    CHECK(contains(e.out, part));
  const nlohmann::json j = json_of(json);
  REQUIRE(j.at("predictions").size() == 7);  // one way inside a node, three beyond
  for (const auto& r : j.at("predictions")) {
    CHECK(r.at("efficiency") <= 1.0);
    CHECK(r.at("efficiency") >= r.at("without_overlap"));
    CHECK(r.at("exposed_s") <= r.at("communication_s"));
  }
  check_refused(evergrad({"bench", "--scaling"}), 2, {"--step-ms", "evergrad bench --trace"});
  check_refused(evergrad({"bench", "--scaling", "--step-ms", "1", "--backward-ms", "2"}), 2, {"2.000"});
  check_refused(evergrad({"bench", "--scaling", (folder / "none.json").string()}), 1, {"none.json: cannot be read"});
  check_refused(evergrad({"bench", "--scaling", json.string()}), 1, {"scaling.json: not a file that evergrad bench"});
  check_refused(
      evergrad(Args{"bench", "--scaling", "--step-ms", "2", "--backward-ms", "1", "--scaling-ranks", "12"} + tiny), 2,
      {"12 ranks do not fill nodes of 8"});
  check_refused(evergrad({"bench", "--scaling", "--weak-scaling"}), 2, {"give one of them"});
}

TEST_CASE("bench --scaling: docs/distributed.md shows what the command prints") {
  const TemporaryFolder folder;
  const auto json = folder / "scaling.json";
  const std::string page = read_file(std::filesystem::path(EVERGRAD_SOURCE_DIR) / "docs/distributed.md");
  const std::string command =
      "bench --scaling --model vit-b --image-size 224 --patch 16 --classes 1000 --step-ms 56.9 --backward-ms 36";
  REQUIRE(contains(page, "build/evergrad " + command));
  Args args;
  std::istringstream words(command);
  for (std::string word; words >> word;) args.push_back(word);
  const Ended e = evergrad(args + Args{"--json", json.string()});
  INFO(e.all());
  REQUIRE(e.code == 0);
  for (const auto& r : json_of(json).at("predictions")) {
    const int ranks = r.at("ranks");
    const double exposed = r.at("exposed_s");
    const std::string row =
        cat("| ", ranks < 1000 ? std::to_string(ranks) : "1,024", " | ", r.at("sums_by").get<std::string>(), " | ",
            fixed(1e3 * r.at("communication_s").get<double>(), 2), " | ", fixed(1e3 * exposed, 2), " | ",
            fixed(56.9 + 1e3 * exposed, 2), " | ", fixed(100 * r.at("efficiency").get<double>(), 1), " % | ",
            fixed(100 * r.at("without_overlap").get<double>(), 1), " % |");
    CHECK_MESSAGE(contains(page, row), row);
  }
}
