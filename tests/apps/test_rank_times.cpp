// tests/apps/test_rank_times.cpp - where the time of each rank goes, and which rank is called slow.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "apps/distributed/rank_times.h"
#include "engine/collectives/loopback.h"
#include "engine/file.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;

TEST_CASE("rank times: one that needs a fifth more than the median, and half a second, is named") {
  const RankTime quick{10.0, 0.5, 4.0}, slow{10.0, 3.0, 0.5};
  CHECK(straggler({quick, quick, slow, quick}) ==
        "rank 2 of 4 holds the others up: it needed 9.5 s of its own (3.0 s of them for its images), the median rank "
        "6.0 s");
  CHECK(straggler({slow, quick}).find("rank 0 of 2") == 0);
  CHECK(straggler({slow, slow}) == "");
  CHECK(straggler({slow}) == "");
  CHECK(straggler({}) == "");
  CHECK(straggler({{10.0, 0.0, 1.0}, {10.0, 0.0, 2.4}}) == "");  // 9 s against 7.6 s: less than a fifth
  CHECK(straggler({{0.5, 0.0, 0.05}, {0.5, 0.0, 0.4}}) == "");   // much more, but of nothing
}

TEST_CASE("rank times: the first rank writes a line with everybody's seconds, and one alone writes nothing") {
  const TemporaryFolder folder;
  run_loopback(2, [&](std::shared_ptr<Collectives> ranks) {
    RankTimes times(ranks, folder.path());
    for (int task = 1; task <= 2; ++task) {
      times.begin(1.0);
      std::vector<float> numbers(32);
      if (task == 2) ranks->reduce_scatter(numbers.data(), 32, DType::f32, {});
      times.end(1.25 + ranks->rank(), LogLine("ranks").add("task", task));
    }
  });
  const std::string text = read_file(folder / "ranks.jsonl");
  const auto line = nlohmann::json::parse(text.substr(text.find('\n') + 1));
  CHECK(line.at("task") == 2);
  CHECK(line.at("compute_s").size() == 2);
  CHECK(line.at("data_s") == nlohmann::json({0.25, 1.25}));
  CHECK(line.at("sent_bytes") == nlohmann::json({64.0, 64.0}));  // half of 32 numbers
  CHECK(line.at("wait_s") == nlohmann::json({0.0, 0.0}));        // nobody watches these ranks

  const TemporaryFolder other;
  RankTimes alone(single_rank(), other.path());
  alone.begin(0.0);
  CHECK(alone.end(0.0, LogLine("ranks")) == "");
  CHECK_FALSE(std::filesystem::exists(other / "ranks.jsonl"));
}
