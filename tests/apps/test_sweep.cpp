// tests/apps/test_sweep.cpp - what a sweep tries and chooses, and runs that are processes of their own.
#include "apps/continual/sweep.h"

#include <algorithm>
#include <limits>
#include <set>

#include "engine/error.h"
#include "tests/apps/command.h"

using namespace eg;
namespace fs = std::filesystem;
using Texts = std::vector<std::string>;

TEST_CASE("sweep: axes are read as written, and every mistake is named") {
  const auto axes = parse_sweep("lr=1e-4, 1e-3; arrow.kappa=0,10");
  REQUIRE(axes.size() == 2);
  CHECK(axes[0].part.empty());
  CHECK(axes[0].option == "lr");
  CHECK(axes[0].values == Texts{"1e-4", "1e-3"});
  CHECK(axes[1].part == "arrow");
  CHECK(axes[1].option == "kappa");
  for (const char* bad : {"lr", "lr=", "=1", "lr=1,,2", "lr=1,1", "lr=1;lr=2", "arrow.=1"}) {
    INFO(std::string(bad));
    CHECK_THROWS_AS(parse_sweep(bad), Error);
  }
}

TEST_CASE("sweep: the points of a method are the product of the axes that concern it") {
  const auto axes = parse_sweep("lr=1,2;arrow.kappa=3,4;sgd.lr=5;l2init.strength=6,7");
  CHECK(sweep_points("adamw", axes, 0) == Texts{"adamw:lr=1", "adamw:lr=2"});
  CHECK(sweep_points("sgd", axes, 0) == Texts{"sgd:lr=5"});
  CHECK(sweep_points("arrow:window=4", axes, 0) == Texts{"arrow:kappa=3:lr=1:window=4", "arrow:kappa=4:lr=1:window=4",
                                                         "arrow:kappa=3:lr=2:window=4", "arrow:kappa=4:lr=2:window=4"});
  CHECK(sweep_points("sgd+l2init", axes, 0) == Texts{"sgd:lr=5+l2init:strength=6", "sgd:lr=5+l2init:strength=7"});
  CHECK(sweep_points("nap", parse_sweep("l2init.strength=1,2"), 0) == Texts{"nap"});
  const Texts all = sweep_points("arrow", axes, 0), some = sweep_points("arrow", axes, 3);
  CHECK(some.size() == 3);
  CHECK(std::is_sorted(some.begin(), some.end(), [&](const auto& a, const auto& b) {
    return std::find(all.begin(), all.end(), a) < std::find(all.begin(), all.end(), b);
  }));
  CHECK(some == sweep_points("arrow", axes, 3));
  CHECK(sweep_points("arrow", axes, 9) == all);
  CHECK_THROWS_AS(check_sweep({"adamw"}, parse_sweep("arrow.kappa=1")), Error);
  CHECK_THROWS_AS(check_sweep({"sgd"}, parse_sweep("lr=1;sgd.lr=2")), Error);  // nothing is left for the general one
  CHECK_NOTHROW(check_sweep({"sgd", "adamw"}, parse_sweep("lr=1;sgd.lr=2")));
}

TEST_CASE("sweep: the best score wins, the first of equals, and what diverged only when all did") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(best_point({0.2, 0.5, 0.4}) == 1);
  CHECK(best_point({0.5, 0.5}) == 0);
  CHECK(best_point({nan, 0.1, nan}) == 1);
  CHECK(best_point({nan, nan}) == 0);
}

TEST_CASE("jobs: runs in processes of their own give the numbers of one process, and resume") {
  const TemporaryFolder folder;
  const Args what = {"--methods", "adamw,sgd:lr=0.05", "--seeds", "1-2"};
  const Ended whole = evergrad(tiny_continual(folder / "one") + what);
  REQUIRE(whole.code == 0);
  const Args farm = tiny_continual(folder / "many") + what + Args{"--jobs", "3", "--resume"};
  const Ended many = evergrad(farm);
  INFO(many.all());
  REQUIRE(many.code == 0);
  CHECK(outcome(folder / "many") == outcome(folder / "one"));
  CHECK(same_file(folder / "many" / "metrics.jsonl", folder / "one" / "metrics.jsonl"));
  CHECK(contains(many.out, "sgd:lr=0.05"));
  check_refused(evergrad({"diagnose", (folder / "many").string()}), 1,
                {"runs lie in folders of their own", "many/runs/"});
  CHECK(evergrad({"diagnose", (folder / "many" / "runs" / "adamw-seed1").string(), "--quick"}).code == 0);
  fs::remove_all(folder / "many" / "runs" / "adamw-seed2");
  const auto untouched = fs::last_write_time(folder / "many" / "runs" / "adamw-seed1" / "summary.json");
  const Ended again = evergrad(farm);
  INFO(again.all());
  REQUIRE(again.code == 0);
  CHECK(outcome(folder / "many") == outcome(folder / "one"));
  CHECK(fs::last_write_time(folder / "many" / "runs" / "adamw-seed1" / "summary.json") == untouched);

  // A run that cannot work is named with its log, and the others are kept.
  write_file(folder / "many" / "runs" / "adamw-seed2" / "summary.json", "{}");
  write_file(folder / "many" / "runs" / "adamw-seed2" / "config.toml", "tasks = 77\n");
  check_refused(evergrad(farm), 1, {"1 of 4 runs failed", ".log"});
}

TEST_CASE("jobs: a signal stops all runs, which go on with --resume to the same numbers") {
  const TemporaryFolder folder;
  const Args what = {"--methods", "adamw,sgd",          "--tasks", "60",     "--epochs",
                     "20",        "--classes-per-task", "3",       "--draw", "iid"};
  REQUIRE(evergrad(tiny_continual(folder / "one") + what).code == 0);
  const Args farm = tiny_continual(folder / "many") + what + Args{"--jobs", "2", "--resume"};
  Command c(Args{EVERGRAD_BINARY} + farm);
  const auto log = folder / "many" / "runs" / "sgd-seed1" / "metrics.jsonl";
  for (int i = 0; i < 20000 && !fs::exists(log); ++i) ::usleep(1000);
  c.signal(SIGTERM);
  const Ended stopped = c.wait();
  INFO(stopped.all());
  CHECK(stopped.code == 143);
  CHECK(contains(stopped.out, "--resume"));
  REQUIRE(evergrad(farm).code == 0);
  CHECK(outcome(folder / "many") == outcome(folder / "one"));
}

TEST_CASE("sweep: settings are chosen on held-out images of other streams, then tested") {
  const TemporaryFolder folder;
  const Args flags = {"--methods",     "adamw,sgd",
                      "--sweep",       "lr=1e-12,3e-3",
                      "--sweep",       "sgd.lr=1e-12,0.05",
                      "--sweep-seeds", "7",
                      "--epochs",      "6",
                      "--jobs",        "2",
                      "--train-limit", "60",
                      "--sweep-tasks", "1"};
  const Ended e = evergrad(tiny_continual(folder / "run") + flags);
  INFO(e.all());
  REQUIRE(e.code == 0);
  const auto sweep = json_of(folder / "run" / "sweep.json");
  const auto summary = json_of(folder / "run" / "summary.json");
  REQUIRE(sweep.at("methods").size() == 2);
  for (std::size_t m = 0; m < 2; ++m) {
    const auto& method = sweep.at("methods")[m];
    double best = -1.0;
    std::string name;
    for (const auto& point : method.at("points"))
      if (point.at("validation_aat").get<double>() > best)
        best = point.at("validation_aat"), name = point.at("settings").get<std::string>();
    CHECK(method.at("chosen") == name);
    CHECK(summary.at("results")[m].at("method") == name);
  }
  // No test image was looked at: the sweep's runs say so, and test on a fifth of the training images.
  for (const auto& entry : fs::directory_iterator(folder / "run" / "sweep")) {
    if (!entry.is_directory()) continue;
    CHECK(contains(json_of(entry.path() / "summary.json").at("stream").get<std::string>(), "held-out"));
    CHECK(contains(read_file(entry.path() / "config.toml"), "validation = 0.2"));
    CHECK(json_of(entry.path() / "summary.json").at("results")[0].at("task_accuracy").size() == 1);
  }
  CHECK(summary.at("results")[0].at("task_accuracy").size() == 3);
  CHECK_FALSE(contains(summary.at("stream").get<std::string>(), "held-out"));
  const Args one = tiny_continual(folder / "no");
  check_refused(evergrad(one + Args{"--sweep", "arrow.kappa=1"}), 2, {"arrow.kappa", "concerns none"});
  check_refused(evergrad(one + Args{"--sweep", "lr=1", "--sweep-seeds", "1"}), 2, {"seed 1", "--sweep-seeds"});
  check_refused(evergrad(one + Args{"--sweep", "adamw.nonsense=1"}), 2, {"nonsense"});
  check_refused(evergrad(one + Args{"--sweep", "lr=1", "--validation", "0.2"}), 2, {"--validation"});
  check_refused(evergrad(one + Args{"--sweep", "lr=1", "--sweep-tasks", "4"}), 2, {"--sweep-tasks 4", "only 3"});
}
