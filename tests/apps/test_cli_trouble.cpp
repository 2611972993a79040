// tests/apps/test_cli_trouble.cpp - what the world may do to a run: a full disk, a read-only one, a second process in
// the same folder, numbers that explode. The message says what happened, and what was saved before stays whole.
#include "tests/apps/command.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {
/// Fills a file system up to that many free bytes.
void fill_disk(const fs::path& disk, std::uintmax_t leave) {
  const std::uintmax_t free = fs::space(disk).available;
  REQUIRE(free > leave);
  write_file(disk / "filler", std::string(std::size_t(free - leave), 'x'));
}
bool has_checkpoint(const fs::path& run) {
  std::error_code ignored;
  for (const auto& f : fs::directory_iterator(run / "checkpoints", ignored))
    if (f.path().extension() == ".json") return true;
  return false;
}
Args saving(const fs::path& run) {
  return tiny_continual(run) + Args{"--tasks", "4", "--methods", "adamw,sgd", "--checkpoint-seconds", "0"};
}
}  // namespace

TEST_CASE("full disk: the run stops with the reason, keeps its last checkpoint, and goes on when there is room") {
  const TemporaryFolder folder;
  REQUIRE(evergrad(saving(folder / "whole")).code == 0);
  const MountedFolder disk("4m");
  if (!disk) return;
  const fs::path run = disk.path() / "run";
  Command c(Args{EVERGRAD_BINARY} + saving(run));
  while (!has_checkpoint(run) && !c.ended_within(std::chrono::milliseconds(1))) {}
  c.signal(SIGSTOP);  // while it stands still, the disk fills up
  REQUIRE(has_checkpoint(run));
  fill_disk(disk.path(), 0);
  c.signal(SIGCONT);
  check_refused(c.wait(), 1, {"No space left on device", disk.path().string()});
  const Ended still_full = evergrad(saving(run) + Args{"--resume"});
  check_refused(still_full, 1, {"No space left on device"});
  CHECK(has_checkpoint(run));
  fs::remove(disk.path() / "filler");
  const Ended e = evergrad(saving(run) + Args{"--resume"});
  INFO(e.all());
  REQUIRE(e.code == 0);
  CHECK(outcome(run) == outcome(folder / "whole"));
  CHECK(same_file(run / "metrics.jsonl", folder / "whole" / "metrics.jsonl"));
  for (const auto& f : fs::recursive_directory_iterator(run)) CHECK(f.path().extension() != ".tmp");
}

TEST_CASE("full disk: a run that cannot even begin says so and leaves nothing that --resume would take for a run") {
  const MountedFolder disk("64k");
  if (!disk) return;
  fill_disk(disk.path(), 0);
  check_refused(evergrad(tiny_continual(disk.path() / "run")), 1, {"No space left on device"});
  check_refused(evergrad(tiny_train(disk.path() / "plain")), 1, {"No space left on device"});
  fs::remove(disk.path() / "filler");
  CHECK_FALSE(fs::exists(disk.path() / "run" / "config.toml"));
  fill_disk(disk.path(), 8192);
  const Ended e = evergrad({"data", "preview", "--out", (disk.path() / "sheet.png").string()});
  check_refused(e, 1, {"sheet.png"});
  CHECK_FALSE(fs::exists(disk.path() / "sheet.png"));
}

TEST_CASE("read-only disk: starting and resuming say so, and what is there stays") {
  const MountedFolder disk("4m");
  if (!disk) return;
  const fs::path run = disk.path() / "run", plain = disk.path() / "plain";
  REQUIRE(evergrad(tiny_continual(run)).code == 0);
  REQUIRE(evergrad(tiny_train(plain)).code == 0);
  const std::string summary = read_file(run / "summary.json");
  disk.make_read_only();
  check_refused(evergrad(tiny_continual(disk.path() / "new")), 1, {"Read-only file system", "new"});
  check_refused(evergrad(tiny_continual(run) + Args{"--resume"}), 1, {"Read-only file system", run.string()});
  check_refused(evergrad(tiny_train(plain) + Args{"--resume"}), 1, {"Read-only file system", plain.string()});
  CHECK(read_file(run / "summary.json") == summary);
  const Ended e = evergrad({"eval", "--checkpoint", plain.string()});  // reading needs no room
  INFO(e.all());
  CHECK(e.code == 0);
}

TEST_CASE("second run: a folder that a live process writes is refused with its pid; the first is not disturbed") {
  const TemporaryFolder folder;
  REQUIRE(evergrad(saving(folder / "whole")).code == 0);
  const fs::path run = folder / "run";
  Command first(Args{EVERGRAD_BINARY} + saving(run));
  while (!has_checkpoint(run) && !first.ended_within(std::chrono::milliseconds(1))) {}
  first.signal(SIGSTOP);
  for (const Args& resume : {Args{}, Args{"--resume"}}) {
    check_refused(evergrad(saving(run) + resume), 2, {"another live process", cat("pid ", first.pid()), "--out"});
    check_refused(evergrad(tiny_train(run) + resume), 2, {"another live process", cat("pid ", first.pid())});
  }
  first.signal(SIGCONT);
  CHECK(first.wait().code == 0);
  CHECK(outcome(run) == outcome(folder / "whole"));
  CHECK(same_file(run / "metrics.jsonl", folder / "whole" / "metrics.jsonl"));
}

TEST_CASE("non-finite loss: that method stops with step, seed and operation, the others go on as if alone") {
  const TemporaryFolder folder;
  // This decay multiplies every weight by 1 - 0.1 * 900 at each update: numbers end after some twenty of them.
  const std::string exploding = "sgd:weight-decay=900";
  const fs::path run = folder / "run";
  const Ended e = evergrad(tiny_continual(run) + Args{"--epochs", "12", "--methods", exploding + ",adamw"});
  INFO(e.all());
  CHECK(e.code == 0);
  const auto summary = json_of(run / "summary.json");
  REQUIRE(summary.at("results").size() == 2);
  const auto &sgd = summary.at("results")[0], &adamw = summary.at("results")[1];
  CHECK(sgd.at("diverged") == true);
  const std::string note = sgd.at("note");
  for (const char* part : {"at step ", "seed 1", "first operation with a non-finite result: ", "--lr"})
    CHECK(contains(note, part));
  CHECK(contains(e.out, exploding + ", seed 1 diverged: the loss is "));
  CHECK(contains(read_file(run / "metrics.jsonl"), "{\"event\":\"diverged\""));
  CHECK(adamw.at("diverged") == false);
  REQUIRE(evergrad(tiny_continual(folder / "alone") + Args{"--epochs", "12"}).code == 0);
  CHECK(outcome(run)[1] == outcome(folder / "alone")[0]);
}

TEST_CASE("non-finite loss: when every method explodes the command fails, and again when it is resumed") {
  const TemporaryFolder folder;
  const Args only =
      tiny_continual(folder / "run") + Args{"--epochs", "12", "--methods", "sgd", "--weight-decay", "900"};
  const Ended e = evergrad(only);
  INFO(e.all());
  CHECK(e.code == 1);
  const Ended again = evergrad(only + Args{"--resume"});
  CHECK(again.code == 1);
  CHECK(again.out == e.out);
  CHECK(contains(again.out, "diverged: "));
}
