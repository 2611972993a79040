// tests/apps/test_cli_killed.cpp - a run that was killed, stopped or that lost its newest checkpoint goes on to the
// same numbers, bit for bit, as one that nobody touched.
#include "tests/apps/command.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {
/// Long enough to be struck anywhere: two methods with state of every kind, saved after every update.
Args killable(const fs::path& out) {
  return tiny_continual(out) +
         Args{"--methods", "adamw,arrow:window=3", "--seeds", "1", "--epochs", "3", "--checkpoint-seconds",
              "0",         "--probe-images",       "8"};
}

/// Lets the command run until its folder holds a checkpoint with at least that number, then sends a signal.
Ended stopped_after(const Args& args, const fs::path& out, int checkpoint, int signal) {
  Command c(Args{EVERGRAD_BINARY} + args);
  const auto reached = [&] {
    std::error_code ignored;
    for (const auto& f : fs::directory_iterator(out / "checkpoints", ignored))
      if (f.path().extension() == ".json" && std::stoi(f.path().stem().string().substr(5)) >= checkpoint) return true;
    return false;
  };
  while (!reached() && !c.ended_within(std::chrono::milliseconds(1))) {}
  c.signal(signal);
  return c.wait();
}

std::vector<fs::path> newest_first(const fs::path& run) {
  std::vector<fs::path> files;
  for (const auto& f : fs::directory_iterator(run / "checkpoints"))
    if (f.path().extension() == ".safetensors") files.push_back(f.path());
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) {
    return std::stoi(a.stem().string().substr(5)) > std::stoi(b.stem().string().substr(5));
  });
  return files;
}
}  // namespace

TEST_CASE("continual: kill -9 at random moments changes no result, no log line and no summary") {
  const TemporaryFolder folder;
  for (const std::string head : {"fresh", "multi"}) {
    INFO(head);
    const Args flags = {"--head", head, "--ema", "0.9"};
    const fs::path whole = folder / ("whole-" + head), killed = folder / "killed";
    REQUIRE(evergrad(killable(whole) + flags).code == 0);
    kill_at_random_moments(killable(killed) + flags + Args{"--resume"}, killed,
                           repetitions(3, 8, 20) / (head == "multi" ? 2 : 1), 150, [&] {
                             CHECK(outcome(killed) == outcome(whole));
                             CHECK(same_file(killed / "metrics.jsonl", whole / "metrics.jsonl"));
                             CHECK(json_of(killed / "summary.json").at("finished") == true);
                           });
    fs::remove_all(killed);
  }
}

TEST_CASE("continual: SIGINT and SIGTERM save, exit with 130 and 143, and the run goes on to the same numbers") {
  const TemporaryFolder folder;
  REQUIRE(evergrad(killable(folder / "whole")).code == 0);
  const std::vector<std::pair<int, int>> signals = {{SIGINT, 130}, {SIGTERM, 143}};
  const fs::path run = folder / "run";
  int checkpoint = 3;
  for (const auto& [signal, code] : signals) {
    const Ended e = stopped_after(killable(run) + Args{"--resume"}, run, checkpoint, signal);
    INFO(e.all());
    CHECK(e.code == code);
    CHECK(e.signal == 0);
    CHECK(contains(e.out, "continue with the same command and --resume"));
    checkpoint += 9;
  }
  CHECK_FALSE(newest_first(run).empty());
  const Ended e = evergrad(killable(run) + Args{"--resume"});
  INFO(e.all());
  REQUIRE(e.code == 0);
  CHECK(outcome(run) == outcome(folder / "whole"));
}

TEST_CASE("train: SIGTERM saves and exits with 143, and the run goes on to the same numbers") {
  const TemporaryFolder folder;
  const Args flags = {"--epochs", "12", "--checkpoint-seconds", "0"};
  REQUIRE(evergrad(tiny_train(folder / "whole") + flags).code == 0);
  const fs::path run = folder / "run";
  CHECK(stopped_after(tiny_train(run) + flags, run, 4, SIGTERM).code == 143);
  REQUIRE(evergrad(tiny_train(run) + flags + Args{"--resume"}).code == 0);
  CHECK(json_of(run / "summary.json").at("epochs") == json_of(folder / "whole" / "summary.json").at("epochs"));
}

TEST_CASE("continual: damaged checkpoints fall back, say so, and lose nothing but time") {
  const TemporaryFolder folder;
  const fs::path whole = folder / "whole", run = folder / "run";
  REQUIRE(evergrad(killable(whole)).code == 0);
  const auto damage = [](const fs::path& file, bool truncate) {
    if (truncate) return fs::resize_file(file, fs::file_size(file) / 2);
    std::string bytes = read_file(file);
    bytes[bytes.size() / 2] = char(bytes[bytes.size() / 2] ^ 1);
    write_file(file, bytes);
  };
  for (const int damaged : {1, 2}) {
    for (const bool truncate : {true, false}) {
      INFO(damaged, std::string(truncate ? " truncated" : " with a flipped bit"));
      CHECK(stopped_after(killable(run), run, 8, SIGTERM).code == 143);
      const std::vector<fs::path> files = newest_first(run);
      REQUIRE(files.size() == 2);
      for (int i = 0; i < damaged; ++i) damage(files[std::size_t(i)], truncate);
      const Ended e = evergrad(killable(run) + Args{"--resume"});
      INFO(e.all());
      REQUIRE(e.code == 0);
      CHECK(contains(e.err, "is damaged"));
      CHECK(contains(e.err, damaged == 1 ? "Falling back to the one of step" : "the run starts from its beginning"));
      CHECK(outcome(run) == outcome(whole));
      CHECK(same_file(run / "metrics.jsonl", whole / "metrics.jsonl"));
      fs::remove_all(run);
    }
  }
}

TEST_CASE("continual: --resume of a finished run prints the table again; on an empty folder it starts") {
  const TemporaryFolder folder;
  const fs::path run = folder / "run";
  fs::create_directory(run);
  const Ended first = evergrad(tiny_continual(run) + Args{"--resume"});
  REQUIRE(first.code == 0);
  const std::string summary = read_file(run / "summary.json"), metrics = read_file(run / "metrics.jsonl");
  const Ended second = evergrad(tiny_continual(run) + Args{"--resume"});
  INFO(second.all());
  CHECK(second.code == 0);
  CHECK(second.out == first.out);
  CHECK(read_file(run / "summary.json") == summary);
  CHECK(read_file(run / "metrics.jsonl") == metrics);
}
