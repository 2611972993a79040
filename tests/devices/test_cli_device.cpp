// tests/devices/test_cli_device.cpp - `--device` as a user gives it: whole runs of the binary on devices that have their
// own memory, streams and recorded steps.
#include <sstream>

#include "tests/apps/command.h"
#include "tests/devices/devices.h"

using namespace eg;
using test::has_emulated;
using test::kernel_devices;

namespace {
/// A run with EVERGRAD_EMULATED set.
Ended under(const std::string& settings, const Args& args) {
  return Command(Args{"/usr/bin/env", "EVERGRAD_EMULATED=" + settings, EVERGRAD_BINARY} + args).wait();
}
Args small_continual(const std::filesystem::path& out, const std::string& device) {
  return tiny_continual(out) +
         Args{"--device",
              device,
              "--tasks",
              "2",
              "--methods",
              "adamw,arrow:window=3,sgd+cbp:rate=0.05:maturity=2:compensate+nap,l2init+shrink-perturb:variant=e,"
              "upgd+snr:tau-max=20:tasks=1:fire=0.5+swr:every=3,"
              "plastic+adaptive-replay:low=1:high=2:every=1:delta=1,l2p:pool=4:length=2:select=2+sam"};
}
/// What a run computed: losses of every task to the last bit, and the diagnosis, as metrics.jsonl has them.
std::vector<std::string> numbers(const std::filesystem::path& folder) {
  std::vector<std::string> all;
  std::istringstream lines(read_file(folder / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json j = nlohmann::json::parse(line);
    if (j.at("event") == "diagnosis") all.push_back(j.at("blocks").dump());
    if (!j.contains("train_loss")) continue;
    for (const char* key : {"method", "seed", "task", "train_loss", "test_loss"})
      all.push_back(cat(key, " ", j.at(key).dump()));
  }
  REQUIRE(!all.empty());
  return all;
}
}  // namespace

TEST_CASE("a run on a device: replaying a recorded step changes no bit, and evaluation elsewhere agrees") {
  for (const std::string& device : kernel_devices()) {
    INFO(device);
    const TemporaryFolder folder;
    const Ended e = evergrad(small_continual(folder / "graph", device));
    INFO(e.all());
    REQUIRE(e.code == 0);
    CHECK(contains(e.all(), "on " + device));
    REQUIRE(evergrad(small_continual(folder / "plain", device) + Args{"--no-graph"}).code == 0);
    CHECK(numbers(folder / "graph") == numbers(folder / "plain"));

    const Args train = tiny_train(folder / "train") + Args{"--device", device};
    REQUIRE(evergrad(train).code == 0);
    const Args eval = {"eval", "--checkpoint", (folder / "train").string()};
    const Ended there = evergrad(eval + Args{"--device", device}), here = evergrad(eval + Args{"--device", "cpu"});
    INFO(there.all(), here.all());
    REQUIRE(there.code == 0);
    REQUIRE(here.code == 0);
    CHECK(there.out.substr(there.out.find("test accuracy")) == here.out.substr(here.out.find("test accuracy")));
  }
}

TEST_CASE("a run on a device in bf16, with everything that a step may hold, repeats bit for bit") {
  for (const std::string& device : kernel_devices()) {
    INFO(device);
    const TemporaryFolder folder;
    const Args more = {"--precision",   "bf16",         "--dim",       "32",          "--qk-norm",
                       "--layer-scale", "0.1",          "--drop-path", "0.2",         "--mixup",
                       "0.2",           "--accumulate", "2",           "--registers", "2"};
    const Ended first = evergrad(small_continual(folder / "a", device) + more);
    INFO(first.all());
    REQUIRE(first.code == 0);
    REQUIRE(evergrad(small_continual(folder / "b", device) + more).code == 0);
    CHECK(numbers(folder / "a") == numbers(folder / "b"));
  }
}

TEST_CASE("a killed run on a device resumes to the uninterrupted run's numbers") {
  for (const std::string& device : kernel_devices()) {
    INFO(device);
    const TemporaryFolder folder;
    REQUIRE(evergrad(small_continual(folder / "whole", device)).code == 0);
    kill_at_random_moments(small_continual(folder / "killed", device) + Args{"--checkpoint-seconds", "0", "--resume"},
                           folder / "killed", repetitions(1, 3, 20), 1000,
                           [&] { CHECK(numbers(folder / "killed") == numbers(folder / "whole")); });
  }
}

TEST_CASE("the emulated device gives the same bits under every schedule, stream order and number of workers") {
  if (!has_emulated()) return;
  const TemporaryFolder folder;
  REQUIRE(evergrad(small_continual(folder / "plain", "emulated")).code == 0);
  const std::vector<std::string> settings = {"workers=1,schedule=random:1,streams=lazy:1",
                                             "workers=3,schedule=random:2,streams=lazy:2", "schedule=round-robin"};
  for (std::size_t i = 0; i < settings.size(); ++i) {
    const std::filesystem::path out = folder / std::to_string(i);
    const Ended e = under(settings[i], small_continual(out, "emulated"));
    INFO(settings[i], e.all());
    REQUIRE(e.code == 0);
    CHECK(numbers(out) == numbers(folder / "plain"));
  }
}

TEST_CASE("ARROW's update inside the backward pass changes no bit, recorded or not, in any order of streams") {
  for (const std::string& device : kernel_devices()) {
    INFO(device);
    const TemporaryFolder folder;
    const auto losses = [&](const std::string& name, const std::string& method, const Args& more) {
      const Args run = tiny_continual(folder / name) + Args{"--device", device, "--tasks", "2", "--clip-norm", "0"} +
                       Args{"--methods", method} + more;
      const Ended e = device == "emulated" ? under("streams=lazy:3", run) : evergrad(run);
      INFO(e.all());
      REQUIRE(e.code == 0);
      std::vector<std::string> all = numbers(folder / name);
      std::erase_if(all, [](const std::string& line) { return contains(line, "method"); });
      return all;
    };
    const std::vector<std::string> after = losses("after", "arrow:window=3", {});
    CHECK(losses("inside", "arrow:window=3:update=backward", {}) == after);
    CHECK(losses("plain", "arrow:window=3:update=backward", {"--no-graph"}) == after);
  }
}

TEST_CASE(
    "bench --ladder: every rung is explained, counted and checked; devices without kernels for a GPU are refused") {
  const Args small = {"bench", "--dim", "32", "--depth", "1", "--heads", "2", "--image-size", "8", "--patch", "4"};
  const TemporaryFolder folder;
  const auto file = folder / "ladder.json";
  for (const std::string& device : kernel_devices())
    for (const auto& [ladder, first] :
         std::vector<std::pair<std::string, std::string>>{{"matmul", "one thread per output"},
                                                          {"attention", "three passes"},
                                                          {"layer_norm", "one thread per row"}}) {
      const Ended e =
          evergrad(small + Args{"--device", device, "--ladder", ladder, "--batch", "2", "--json", file.string()});
      INFO(e.all());
      CHECK(e.code == 0);
      CHECK(contains(e.out, first));
      CHECK(contains(e.out, "trains"));
      CHECK(contains(e.out, device == "emulated" ? "nothing about their speed" : "of bound"));
      CHECK(contains(e.out, "fp32 -, bf16 -, copy ") == (device == "emulated"));
      CHECK(contains(e.out, "triad -\n"));
      CHECK(contains(e.out, json_of(file).at("ladder").at("text").get<std::string>()));
    }
  const Ended refused = evergrad(small + Args{"--device", "cpu", "--ladder", "matmul"});
  check_refused(refused, 2, {"--device emulated"});
  CHECK(refused.out.empty());  // before anything is measured
  check_refused(evergrad(small + Args{"--ladder", "conv"}), 2, {"conv", "attention"});
  if (has_emulated())
    check_refused(evergrad(small + Args{"--device", "emulated", "--ladder", "attention", "--heads", "4"}), 2,
                  {"heads of 8"});
}

TEST_CASE("bench --trace: on a device with streams every part has a time of its own, and the scaling model reads it") {
  for (const std::string& device : kernel_devices()) {
    INFO(device);
    const TemporaryFolder folder;
    const auto file = folder / "trace.json";
    const Ended e = evergrad(Args{"bench", "--trace", file.string(), "--steps", "2", "--batch", "4", "--methods",
                                  "arrow:window=2", "--device", device} +
                             tiny_model());
    INFO(e.all());
    REQUIRE(e.code == 0);
    CHECK(contains(e.out, "These steps were launched piece by piece"));
    const nlohmann::json j = json_of(file);
    // The parts of one stream follow each other: none begins before the one before it has ended (to the half microsecond that
    // a GPU's clock resolves, once for each of the two), and together they fit into the steps that the host saw.
    double last = -1e9, work = 0.0, steps = 0.0, resolution = 0.0;
    for (const auto& event : j.at("traceEvents")) {
      if (event.at("ph") != "X") continue;
      const double begin = event.at("ts"), duration = event.at("dur");
      const std::string name = event.at("name");
      CHECK(duration >= 0.0);
      if (name.starts_with("step ")) steps += duration;
      const bool within_backward = name.starts_with("block") || name.starts_with("outside") || name == "rest";
      if (event.at("tid") != 1 || within_backward) continue;
      CAPTURE(name);
      CHECK(begin >= last - 1.0);
      last = begin + duration, work += duration, resolution += 1.0;
    }
    CHECK(work > 0.0);
    CHECK(work <= steps + resolution);
    const auto& profile = j.at("otherData").at("profile");
    CHECK(profile.at("backward_s") > 0.0);
    CHECK(profile.at("step_s") > profile.at("backward_s"));
    for (const auto& bucket : profile.at("buckets")) CHECK(bucket.at("ready_s") > 0.0);
    CHECK(evergrad({"bench", "--scaling", file.string()}).code == 0);
  }
}

TEST_CASE("devices that are refused say what there is") {
  const TemporaryFolder folder;
  if (has_emulated()) {
    const Ended e = under("schedule=fair", small_continual(folder / "a", "emulated"));
    check_refused(e, 2, {"EVERGRAD_EMULATED=schedule=fair", "random:SEED"});
    check_refused(evergrad(small_continual(folder / "b", "emulated:1")), 2, {"emulated:1", "cuda:N"});
  }
  check_refused(evergrad(small_continual(folder / "c", "cuda:99")), 1, {"cuda:99", "available"});
  // `info` and the refusal give one reason: the build's, or else what the driver said.
  const std::string info = evergrad({"info"}).out;
  if (const auto at = info.find("  cuda:N"); at != std::string::npos) {
    const std::string why = info.substr(at + 13, info.find('\n', at) - at - 13);
    CHECK(contains(why, "not in this build; configure with -DEVERGRAD_CUDA=ON") !=
          contains(why, "in this build, but no GPU can be used here: "));
    check_refused(evergrad(small_continual(folder / "d", "cuda:0")), 1, {"cuda:0 is " + why, "available: cpu"});
  } else {
    CHECK(contains(info, "  cuda:0"));
  }
  CHECK_FALSE(std::filesystem::exists(folder / "a" / "summary.json"));
}
