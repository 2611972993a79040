// tests/apps/test_plugin.cpp - a method from a shared object runs like one of evergrad's own: killed, or split over
// processes. What is refused, and the installed binary, are in tests/scripts/test_install.py.
#include "tests/apps/command.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {
Args with_plugin(const fs::path& out) {
  return tiny_continual(out) +
         Args{"--plugin", EVERGRAD_PLUGIN_FILE, "--methods", "my-method:rate=0.3,sgd+my-method", "--checkpoint-seconds",
              "0"};
}
}  // namespace

TEST_CASE("plugin: a killed run of its method goes on bit for bit, and its processes find it") {
  const TemporaryFolder folder;
  const fs::path whole = folder / "whole", killed = folder / "killed", split = folder / "split";
  REQUIRE(evergrad(with_plugin(whole)).code == 0);
  kill_at_random_moments(with_plugin(killed) + Args{"--resume"}, killed, repetitions(1, 3, 8), 150, [&] {
    CHECK(outcome(killed) == outcome(whole));
    CHECK(same_file(killed / "metrics.jsonl", whole / "metrics.jsonl"));
  });
  REQUIRE(evergrad(with_plugin(split) + Args{"--jobs", "2"}).code == 0);
  CHECK(outcome(split) == outcome(whole));
}

TEST_CASE("plugin: strength zero is the base optimizer, and more of it another run") {
  const TemporaryFolder folder;
  // The log without the method's name: accuracies and losses of every task.
  const auto log_of = [&](const std::string& method) {
    const fs::path out = folder / ("run" + method);
    REQUIRE(evergrad(with_plugin(out) + Args{"--methods", method, "--probe", "none"}).code == 0);
    std::string text = read_file(out / "metrics.jsonl");
    for (std::size_t at = 0; (at = text.find(method, at)) != std::string::npos;) text.erase(at, method.size());
    return text;
  };
  const std::string none = log_of("my-method:rate=0");
  CHECK(none == log_of("adamw"));
  CHECK_FALSE(none == log_of("my-method:rate=0.9"));
}

TEST_CASE("plugin: without it its method is unknown, and a resumed run may find it elsewhere") {
  const TemporaryFolder folder;
  check_refused(evergrad(tiny_continual(folder / "run") + Args{"--methods", "my-method"}), 2, {"my-method", "adamw"});
  CHECK_FALSE(fs::exists(folder / "run"));
  REQUIRE(evergrad(with_plugin(folder / "run")).code == 0);
  fs::copy_file(EVERGRAD_PLUGIN_FILE, folder / "moved.so");
  const Ended again =
      evergrad(with_plugin(folder / "run") + Args{"--plugin", (folder / "moved.so").string(), "--resume"});
  INFO(again.all());
  CHECK(again.code == 0);
}

TEST_CASE("plugin: the weights of a run of its method can be taken out, without a word about the plugin") {
  const TemporaryFolder folder;
  const std::string run = (folder / "run").string();
  REQUIRE(evergrad(tiny_continual(run) + Args{"--plugin", EVERGRAD_PLUGIN_FILE, "--methods", "sgd+my-method"}).code ==
          0);
  const Ended e = evergrad({"export", run, "-o", (folder / "vit.safetensors").string()});
  INFO(e.all());
  CHECK(e.code == 0);
  CHECK(contains(e.out, "trained with sgd+my-method"));
}
