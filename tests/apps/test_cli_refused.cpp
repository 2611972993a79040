// tests/apps/test_cli_refused.cpp - what a person may get wrong on the command line or in a run folder: the message
// names it and the remedy, the exit code is not zero, and nothing is made, changed or lost.
#include "tests/apps/command.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {
/// Every file below a folder with its content; the lock's content is its owner's.
std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (const auto& f : fs::recursive_directory_iterator(folder))
    if (f.is_regular_file() && f.path().filename() != ".lock") all[f.path().string()] = read_file(f.path());
  return all;
}
}  // namespace

TEST_CASE("command line: every flag that cannot be is refused before a folder is made") {
  const TemporaryFolder folder;
  const fs::path out = folder / "run";
  const std::vector<std::pair<Args, std::vector<std::string>>> bad = {
      {{"--taks", "3"}, {"--taks", "--help"}},
      {{"--tasks", "0"}, {"--tasks", "0"}},
      {{"--tasks", "many"}, {"--tasks", "many"}},
      {{"--tasks"}, {"--tasks"}},
      {{"--epochs", "-1"}, {"--epochs"}},
      {{"--batch", "0"}, {"--batch"}},
      {{"--lr", "-0.1"}, {"--lr"}},
      {{"--lr", "nan"}, {"--lr"}},
      {{"--threads", "100000"}, {"--threads"}},
      {{"--zero", "2"}, {"--zero"}},
      {{"--workers", "0"}, {"--workers"}},
      {{"--probe-images", "-3"}, {"--probe-images"}},
      {{"--protocol", "class-subsets"}, {"--protocol", "class-subset"}},
      {{"--then", "nothing"}, {"--then", "class-subset"}},
      {{"--head", "none"}, {"--head", "fresh"}},
      {{"--stream", "mnist"}, {"--stream", "idx"}},
      {{"--augment", "rotate"}, {"--augment", "crop-flip"}},
      {{"--schedule", "steps"}, {"--schedule", "cosine"}},
      {{"--precision", "fp16"}, {"--precision", "bf16"}},
      {{"--device", "gpu"}, {"gpu", "cpu"}},
      {{"--device", "reference", "--precision", "bf16"}, {"reference", "fp32"}},
      {{"--model", "vit-xl"}, {"--model", "vit-ti"}},
      {{"--patch", "3"}, {"8", "3", "--patch"}},
      {{"--heads", "5"}, {"16", "5", "--heads"}},
      {{"--seeds", ""}, {"--seeds"}},
      {{"--seeds", "1,x"}, {"--seeds", "'x'"}},
      {{"--seeds", "5-1"}, {"--seeds", "5-1"}},
      {{"--seeds", "1,1"}, {"--seeds", "twice"}},
      {{"--methods", ""}, {"--methods"}},
      {{"--methods", "adamw,adamw"}, {"--methods", "twice"}},
      {{"--methods", "adamw,arow"}, {"'arow'", "arrow", "sgd"}},
      {{"--methods", "adamw,arrow:windw=4"}, {"'windw'", "window"}},
      {{"--methods", "arrow:window=0"}, {"window=0", "1"}},
      {{"--methods", "arrow:window=x"}, {"window=x"}},
      {{"--methods", "arrow:blocks=7"}, {"7"}},
      {{"--methods", "adamw:beta1=2"}, {"beta1=2"}},
      {{"--head", "growing"}, {"--head growing", "class-incremental"}},
      {{"--head", "masked", "--protocol", "domain"}, {"--head masked", "domain"}},
      {{"--head", "multi", "--protocol", "class-incremental"}, {"--head multi", "growing"}},
      {{"--protocol", "class-incremental", "--test-limit", "3"}, {"--test-limit", "6"}},
      {{"--draw", "disjoint", "--tasks", "900000"}, {"1800000", "deck"}},
      {{"--out", ""}, {"--out"}},
      {{"spurious"}, {"spurious"}}};
  for (const auto& [flags, parts] : bad) {
    std::string shown;
    for (const std::string& f : flags) shown += " " + f;
    INFO(shown);
    check_refused(evergrad(tiny_continual(out) + flags), 2, parts);
    CHECK_FALSE(fs::exists(out));
  }
  check_refused(evergrad(tiny_continual(out) + Args{"--device", "cuda:0"}), 1, {"cuda:0", "available: cpu, reference"});
  check_refused(evergrad({}), 2, {"--help"});
  check_refused(evergrad({"contnual"}), 2, {"contnual"});
  check_refused(evergrad(tiny_train(out) + Args{"--method", "adamw:beta3=1"}), 2, {"beta3"});
  check_refused(evergrad(tiny_train(out) + Args{"--classes", "2000000"}), 2, {"2000000"});
  check_refused(evergrad(tiny_train(out) + Args{"--seed", "-1"}), 2, {"--seed"});
  CHECK_FALSE(fs::exists(out));
}

TEST_CASE("run folder: an existing run without --resume is refused and left as it was") {
  const TemporaryFolder folder;
  const fs::path run = folder / "run";
  REQUIRE(evergrad(tiny_continual(run)).code == 0);
  const auto before = contents(run);
  check_refused(evergrad(tiny_continual(run)), 2, {run.string(), "--resume", "--out"});
  CHECK(contents(run) == before);
  fs::create_directory(folder / "thesis");
  write_file(folder / "thesis" / "chapter.tex", "x");
  check_refused(evergrad(tiny_continual(folder / "thesis") + Args{"--resume"}), 2, {"chapter.tex"});
  check_refused(evergrad(tiny_continual(folder / "thesis" / "chapter.tex")), 2, {"is a file"});
  CHECK(contents(folder / "thesis").size() == 1);
}

TEST_CASE("run folder: resuming with another configuration names the key and both values, and changes nothing") {
  const TemporaryFolder folder;
  const fs::path run = folder / "run", plain = folder / "plain";
  REQUIRE(evergrad(tiny_continual(run)).code == 0);
  REQUIRE(evergrad(tiny_train(plain)).code == 0);
  const auto before = contents(folder.path());
  const std::vector<std::pair<Args, std::vector<std::string>>> other = {
      {{"--batch", "9"}, {"batch was 8 and is now 9"}},
      {{"--tasks", "4"}, {"tasks was 3 and is now 4"}},
      {{"--lr", "0.5"}, {"lr was not set and is now 0.5"}},
      {{"--methods", "adamw,sgd"}, {"methods was \"adamw\" and is now \"adamw,sgd\""}},
      {{"--seeds", "2"}, {"seeds was \"1\" and is now \"2\""}},
      {{"--depth", "2"}, {"depth was 1 and is now 2"}},
      {{"--threads", "2"}, {"threads was 1 and is now 2"}},
      {{"--head", "zero"}, {"head was \"fresh\" and is now \"zero\""}}};
  for (const auto& [flags, parts] : other) {
    const std::string shown = flags[0];  // clang 14 cannot capture a structured binding, which INFO would
    INFO(shown);
    check_refused(evergrad(tiny_continual(run) + Args{"--resume"} + flags), 2, parts);
  }
  check_refused(evergrad(tiny_train(plain) + Args{"--resume", "--mixup", "0.5"}), 2, {"mixup was 0.0 and is now 0.5"});
  CHECK(contents(folder.path()) == before);
  // What changes no number may differ; so may the way in which a value is written.
  CHECK(evergrad(tiny_continual(run) + Args{"--resume", "--workers", "3", "--checkpoint-seconds", "1"}).code == 0);
  CHECK(evergrad(tiny_continual(run) + Args{"--resume", "--seeds", "1-1", "--head", "fresh"}).code == 0);
}
