// tests/devices/test_cli_library.cpp - a library's kernel that gives NaN: EVERGRAD_EMULATED=library=CALL plants one for attention's
// backward pass on the emulated device, which does so from that call on.
#include <algorithm>
#include <fstream>

#include "tests/devices/devices.h"
#include "tests/devices/short_training.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {

/// Saved steps of a run.
int saves(const fs::path& run) {
  int newest = 0;
  std::error_code none;
  for (const auto& f : fs::directory_iterator(run / "checkpoints", none))
    if (f.path().extension() == ".json") newest = std::max(newest, std::stoi(f.path().stem().string().substr(5)));
  return newest;
}

}  // namespace

TEST_CASE("--kernels library: a library whose gradient is not finite costs one step, is left, and stays left") {
  if (!test::has_emulated()) return;
  const TemporaryFolder folder;
  const fs::path cache = folder / "cache", clean = folder / "clean", whole = folder / "whole", run = folder / "run";
  // 27 steps: 20 in a row without an update would stop the run.
  const Args flags{"--kernels", "library", "--epochs", "9", "--checkpoint-seconds", "0"};
  const auto ended = [&](const std::string& library, const fs::path& out, const Args& more) {
    return Command(short_training("emulated", cache, "library=" + library, out) + flags + more).wait();
  };
  const Ended never = ended("0", clean, {});
  INFO(never.all());
  REQUIRE(never.code == 0);
  CHECK_FALSE(contains(never.all(), "not finite"));
  CHECK(contains(read_file(clean / "config.toml"), "= library-backward\""));

  // Step 5 is replayed from a recording that holds the library; from it on every call of the library gives NaN.
  const Ended left = ended("5", whole, {});
  INFO(left.all());
  REQUIRE(left.code == 0);
  CHECK(contains(left.all(), "the gradient of step 4 was not finite"));  // counted from 0
  CHECK(contains(left.all(), "library-backward -> one-kernel"));
  CHECK(left.all().find("was not finite") == left.all().rfind("was not finite"));
  CHECK(losses(whole) != losses(clean));

  // Stopped anywhere and resumed: the same numbers. A library that is taken after step 5 would give NaN at once.
  for (const int stop : {2, 8}) {
    fs::remove_all(run);
    Command first(short_training("emulated", cache, "library=5", run) + flags);
    while (saves(run) < stop && !first.ended_within(std::chrono::milliseconds(1))) {}
    first.signal(SIGTERM);
    first.wait();
    const int done = saves(run);
    INFO("stopped after ", done, " steps");
    const Ended rest = ended(std::to_string(std::max(1, 5 - done)), run, {"--resume"});
    INFO(rest.all());
    REQUIRE(rest.code == 0);
    CHECK(contains(rest.all(), "was not finite") == (done < 5));
    CHECK(losses(run) == losses(whole));
  }
}
