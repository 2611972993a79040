// tests/apps/test_cli_flags.cpp - every flag reaches what it names: with it the numbers of a run are others than
// without it, except for the few that promise the same numbers.
#include <cmath>
#include <set>
#include <sstream>

#include "tests/apps/command.h"

using namespace eg;

namespace {
/// What training and tests gave, task by task; the diagnosis is left out.
std::string numbers(const std::filesystem::path& out, const Args& flags) {
  const Ended e = evergrad(tiny_continual(out) + Args{"--depth", "2", "--precision", "fp32"} + flags);
  INFO(e.all());
  REQUIRE(e.code == 0);
  std::string all;
  std::istringstream in(read_file(out / "metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line);
    if (j.at("event") != "task") continue;
    all += cat(j.at("train_loss").dump(), ' ', j.at("test_loss").dump(), '\n');
  }
  return all;
}
}  // namespace

TEST_CASE("flags: each one of the model, the training and the data changes the numbers, and in its own way") {
  const TemporaryFolder folder;
  const std::vector<Args> flags = {{},
                                   {"--lr", "0.002"},
                                   {"--weight-decay", "1"},
                                   {"--clip-norm", "0.01"},
                                   {"--smoothing", "0.2"},
                                   {"--ema", "0.5"},
                                   {"--schedule", "linear"},
                                   {"--schedule", "cosine"},
                                   {"--warmup-steps", "3"},
                                   {"--optimizer-state", "clear"},
                                   {"--epochs", "3"},
                                   {"--batch", "7"},
                                   {"--train-limit", "20"},
                                   {"--test-limit", "10"},
                                   {"--seeds", "2"},
                                   {"--augment", "none"},
                                   {"--augment", "crop"},
                                   {"--augment", "flip"},
                                   {"--randaugment", "2"},
                                   {"--mixup", "0.5"},
                                   {"--cutmix", "0.5"},
                                   {"--channels", "1"},
                                   {"--image-size", "12"},
                                   {"--patch", "2"},
                                   {"--dim", "24"},
                                   {"--depth", "3"},
                                   {"--heads", "2"},
                                   {"--mlp-ratio", "2"},
                                   {"--pool", "mean"},
                                   {"--pos", "sincos"},
                                   {"--gelu", "tanh"},
                                   {"--qk-norm"},
                                   {"--layer-scale", "0.1"},
                                   {"--drop-path", "0.5"},
                                   {"--registers", "2"},
                                   {"--precision", "bf16"},
                                   {"--device", "reference"}};
  std::set<std::string> seen;
  int i = 0;
  for (const Args& flag : flags) {
    std::string shown;
    for (const std::string& part : flag) shown += " " + part;
    INFO(shown);
    CHECK(seen.insert(numbers(folder / cat("run-", i++), flag)).second);
  }
}

TEST_CASE("flags: those of class-incremental and noisy-label streams change the numbers") {
  const TemporaryFolder folder;
  const Args arriving = {"--protocol", "class-incremental"}, noisy = {"--protocol", "noisy-label"};
  CHECK(numbers(folder / "new", arriving) != numbers(folder / "seen", arriving + Args{"--train-on", "seen"}));
  CHECK(numbers(folder / "half", noisy) != numbers(folder / "none", noisy + Args{"--label-noise", "0"}));
}

TEST_CASE("flags: recomputing activations costs time and changes no bit") {
  const TemporaryFolder folder;
  const Args flags = {"--drop-path", "0.3"};
  CHECK(numbers(folder / "kept", flags) == numbers(folder / "again", flags + Args{"--recompute"}));
}

TEST_CASE("flags: a method sees the same tasks, weights and batches whatever stands beside it") {
  const TemporaryFolder folder;
  const auto run = [&](const char* name, const std::string& methods, const std::string& seeds) {
    numbers(folder / name, {"--methods", methods, "--seeds", seeds});
    return outcome(folder / name);
  };
  const auto together = run("together", "sgd,arrow,adamw", "1,2"), alone = run("alone", "adamw", "2"),
             reversed = run("reversed", "adamw,sgd", "2,1");
  CHECK(together[5] == alone[0]);  // adamw, seed 2
  CHECK(together[4] == reversed[1]);
  CHECK(together[0] == reversed[3]);  // sgd, seed 1
}

TEST_CASE("flags: the last occurrence on the command line wins") {
  const TemporaryFolder folder;
  CHECK(numbers(folder / "once", {"--lr", "0.01"}) == numbers(folder / "twice", {"--lr", "0.5", "--lr", "0.01"}));
}

TEST_CASE("heads: the softmax is over the classes that the head's policy allows, in training and in tests") {
  const TemporaryFolder folder;
  // Without learning every logit stays near 0, and the loss is the logarithm of the number of allowed classes.
  struct Expected {
    const char *protocol, *head;
    std::vector<double> training, test;  // allowed classes, task by task
  };
  const std::vector<Expected> all = {{"class-subset", "fresh", {2, 2, 2}, {2, 2, 2}},
                                     {"class-subset", "multi", {2, 2, 2}, {2, 2, 2}},
                                     {"class-subset", "masked", {2, 2, 2}, {2, 2, 2}},
                                     {"class-incremental", "growing", {2, 4, 6}, {2, 4, 6}},
                                     {"class-incremental", "masked", {2, 2, 2}, {2, 4, 6}}};
  for (const Expected& e : all) {
    const std::string shown = cat(e.protocol, ' ', e.head);
    INFO(shown);
    const auto out = folder / (std::string(e.protocol) + e.head);
    numbers(out, {"--protocol", e.protocol, "--head", e.head, "--lr", "0"});
    std::istringstream in(read_file(out / "metrics.jsonl"));
    std::size_t task = 0;
    for (std::string line; std::getline(in, line);) {
      const auto j = nlohmann::json::parse(line);
      if (j.at("event") != "task") continue;
      REQUIRE(task < e.training.size());
      CHECK(std::abs(j.at("train_loss").get<double>() - std::log(e.training[task])) < 0.15);
      CHECK(std::abs(j.at("test_loss").get<double>() - std::log(e.test[task])) < 0.15);
      ++task;
    }
    CHECK(task == e.training.size());
  }
}

TEST_CASE("non-finite loss: it is noticed at whatever step the numbers end, the task's last one included") {
  const TemporaryFolder folder;
  int in_training = 0, in_test = 0, never = 0;
  // One update an epoch, each of which multiplies the weights by about -89; then a test.
  for (int epochs = 1; epochs <= 24; epochs += epochs < 10 ? 3 : 1) {
    INFO(epochs);
    const auto out = folder / cat("run-", epochs);
    const Ended e = evergrad(tiny_continual(out) + Args{"--methods", "sgd:weight-decay=900", "--tasks", "1", "--batch",
                                                        "24", "--epochs", std::to_string(epochs)});
    INFO(e.all());
    const auto result = json_of(out / "summary.json").at("results").at(0);
    CHECK(e.code == (result.at("diverged") == true ? 1 : 0));
    const std::string note = result.value("note", "");
    const bool test = note.rfind("the test loss is ", 0) == 0, training = note.rfind("the loss is ", 0) == 0;
    CHECK(result.at("diverged") == (test || training));
    in_training += training, in_test += test, never += note.empty();
  }
  CHECK(in_training > 0);
  CHECK(in_test > 0);
  CHECK(never > 0);
}
