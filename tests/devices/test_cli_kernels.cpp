// tests/devices/test_cli_kernels.cpp - `--kernels`: what a run has chosen stays with it. The emulated device has no clock of
// its own; EVERGRAD_EMULATED=fastest=NAME gives it one that favours a kernel. A GPU measures, and may choose anything.
#include <fstream>

#include "tests/devices/devices.h"
#include "tests/devices/short_training.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {

Ended train(const std::string& device, const fs::path& cache, const std::string& fastest, const fs::path& out,
            const Args& more) {
  return Command(short_training(device, cache, "fastest=" + fastest, out) + Args{"--epochs", "1"} + more).wait();
}

void replace_all(const fs::path& file, const std::string& from, const std::string& to) {
  std::string text = read_file(file);
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  std::ofstream(file) << text;
}

}  // namespace

TEST_CASE("--kernels auto: what was measured is shown, kept with the run and taken again, whatever is fastest then") {
  for (const std::string& device : test::kernel_devices()) {
    INFO(device);
    const bool emulated = device == "emulated";
    const TemporaryFolder folder;
    const fs::path cache = folder / "cache", run = folder / "run";
    const Ended first = train(device, cache, "tile-64", run, {"--kernels", "auto"});
    INFO(first.all());
    REQUIRE(first.code == 0);
    CHECK(contains(first.all(), "kernels chosen"));
    const std::string config = read_file(run / "config.toml"), numbers = losses(run);
    CHECK(contains(config, "kernel-choices"));
    if (emulated) {
      CHECK(contains(config, "= tile-64\""));
      CHECK(contains(config, "= one-kernel\""));  // nobody favours the other: ours stays
    }
    // Only the record is left of the run: the emulated device's clock now favours another kernel, the record wins.
    const auto begin_again = [&] {
      for (const auto& f : fs::directory_iterator(run))
        if (f.path().filename() != "config.toml") fs::remove_all(f.path());
    };
    begin_again();
    const Ended again = train(device, cache, "plain", run, {"--kernels", "auto", "--resume"});
    INFO(again.all());
    REQUIRE(again.code == 0);
    CHECK(contains(again.all(), "this run"));
    CHECK(read_file(run / "config.toml") == config);
    CHECK(losses(run) == numbers);
    // Another run on the same machine need not measure; auto is the default.
    const Ended other = train(device, cache, "plain", folder / "other", {});
    INFO(other.all());
    CHECK(other.code == 0);
    CHECK(contains(other.all(), "cache"));
    CHECK(losses(folder / "other") == numbers);
    if (!emulated) continue;
    // A kernel that this build does not have.
    begin_again();
    replace_all(run / "config.toml", "= tile-64\"", "= tile-9\"");
    check_refused(train(device, cache, "plain", run, {"--kernels", "auto", "--resume"}), 2,
                  {"tile-9", "tile-64", "--out"});
  }
}

TEST_CASE("--kernels hand and library: no record where there is no choice, and the mode belongs to the run") {
  for (const std::string& device : test::kernel_devices()) {
    INFO(device);
    const TemporaryFolder folder;
    const fs::path run = folder / "run";
    const Ended hand = train(device, folder / "cache", "tile-64", run, {"--kernels", "hand"});
    INFO(hand.all());
    REQUIRE(hand.code == 0);
    const std::string config = read_file(run / "config.toml");
    CHECK(contains(config, "kernels = \"hand\""));
    CHECK_FALSE(contains(config, "kernel-choices"));
    CHECK_FALSE(fs::exists(folder / "cache"));
    std::vector<std::string> library;
    for (const char* const name : {"library", "repeated"}) {
      const Ended e = train(device, folder / "cache", "tile-64", folder / name, {"--kernels", "library"});
      INFO(e.all());
      REQUIRE(e.code == 0);
      library.push_back(losses(folder / name));
    }
    CHECK(library[0] == library[1]);
    if (device == "emulated") CHECK(library[0] == losses(run));  // this device has no library: ours
    const Ended pinned = train(device, folder / "cache", "tile-64", folder / "pinned", {"--deterministic"});
    INFO(pinned.all());
    REQUIRE(pinned.code == 0);
    CHECK(losses(folder / "pinned") == losses(run));
    CHECK(contains(read_file(folder / "pinned/config.toml"), "deterministic = true"));
    CHECK(contains(read_file(folder / "pinned/config.toml"), "kernels = \"hand\""));
    check_refused(train(device, folder / "cache", "tile-64", folder / "x", {"--deterministic", "--kernels", "library"}),
                  2, {"--deterministic", "--kernels library"});
    check_refused(train(device, folder / "cache", "tile-64", run, {"--kernels", "auto", "--resume"}), 2,
                  {"kernels", "hand", "auto"});
    check_refused(train(device, folder / "cache", "tile-64", folder / "x", {"--kernels", "fast"}), 2,
                  {"--kernels", "library"});
  }
}
