// tests/apps/test_cli_train.cpp - `evergrad train` and `evergrad eval`: what a run leaves, what its checkpoint is
// worth.
#include "apps/run/config.h"
#include "tests/apps/command.h"

using namespace eg;

namespace {
/// The number after "test accuracy " on standard output, in percent as it is printed.
std::string printed_accuracy(const Ended& e) {
  INFO(e.all());
  REQUIRE(e.code == 0);
  const std::size_t at = e.out.find("test accuracy ");
  REQUIRE(at != std::string::npos);
  return e.out.substr(at, e.out.find('%', at) - at);
}
}  // namespace

TEST_CASE("train: ends with a test accuracy that eval repeats from the checkpoint alone, with and without an average") {
  const TemporaryFolder folder;
  const std::vector<std::pair<const char*, Args>> variants = {
      {"plain", {}}, {"average", {"--ema", "0.7"}}, {"mean", {"--pool", "mean", "--pos", "sincos", "--qk-norm"}}};
  for (const auto& [name, more] : variants) {
    const std::string shown = name;  // clang 14 cannot capture a structured binding, which INFO would
    INFO(shown);
    const auto out = folder / name;
    const std::string accuracy =
        printed_accuracy(evergrad(tiny_train(out) + Args{"--epochs", "4", "--lr", "0.01"} + more));
    const auto summary = json_of(out / "summary.json");
    CHECK(summary.at("finished") == true);
    CHECK(summary.at("epochs").size() == 4);
    CHECK(printed_accuracy(evergrad({"eval", "--checkpoint", out.string()})) == accuracy);
    CHECK(printed_accuracy(evergrad({"eval", "--checkpoint", (out / "checkpoints").string(), "--config",
                                     (out / "config.toml").string()})) == accuracy);
    for (const auto& file : std::filesystem::directory_iterator(out / "checkpoints"))
      CHECK(printed_accuracy(evergrad({"eval", "--checkpoint", file.path().string()})) == accuracy);
  }
}

TEST_CASE("train: config.toml is resolved and repeats the run; unknown keys and bad values in it are named") {
  const TemporaryFolder folder;
  const std::string first = printed_accuracy(evergrad(tiny_train(folder / "a") + Args{"--dim", "0", "--heads", "0"}));
  const std::string config = (folder / "a" / "config.toml").string();
  const Config c = Config::read(config);
  CHECK(c.whole("dim") == 192);
  CHECK(c.whole("heads") == 3);
  CHECK(contains(to_toml(*c.find("method-settings")), "lr 0.001"));
  CHECK(printed_accuracy(evergrad({"train", "--config", config, "--out", (folder / "b").string()})) == first);
  CHECK(read_file(config) == read_file(folder / "b" / "config.toml"));
  const auto with = [&](const std::string& text) {
    write_file(folder / "c.toml", text);
    return evergrad({"train", "--config", (folder / "c.toml").string(), "--out", (folder / "c").string()});
  };
  check_refused(with("epochs = 1\nepoch = 2\n"), 2, {"c.toml", "'epoch' is not a flag"});
  check_refused(with("epochs = 0\n"), 2, {"c.toml", "epochs", "0"});
  check_refused(with("model = \"vit-xl\"\n"), 2, {"c.toml", "model", "vit-xl"});
  check_refused(with("epochs = \n"), 1, {"c.toml:1"});
  check_refused(evergrad({"train", "--config", (folder / "none.toml").string()}), 1, {"none.toml"});
  CHECK_FALSE(std::filesystem::exists(folder / "c"));
}

TEST_CASE("train: a finished run resumes to the same result, an empty folder starts") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "run");
  const std::string first = printed_accuracy(evergrad(tiny_train(folder / "run") + Args{"--resume"}));
  const std::string metrics = read_file(folder / "run" / "metrics.jsonl");
  CHECK(printed_accuracy(evergrad(tiny_train(folder / "run") + Args{"--resume"})) == first);
  CHECK(read_file(folder / "run" / "metrics.jsonl") == metrics);
}

TEST_CASE("train: killed again and again it ends with the uninterrupted run's numbers") {
  const TemporaryFolder folder;
  const Args flags = {"--epochs", "6",        "--ema",         "0.9", "--mixup", "0.2", "--checkpoint-seconds",
                      "0",        "--method", "arrow:window=3"};
  REQUIRE(evergrad(tiny_train(folder / "whole") + flags).code == 0);
  kill_at_random_moments(tiny_train(folder / "killed") + flags + Args{"--resume"}, folder / "killed",
                         repetitions(1, 4, 20), 100, [&] {
                           CHECK(json_of(folder / "killed" / "summary.json").at("epochs") ==
                                 json_of(folder / "whole" / "summary.json").at("epochs"));
                           CHECK(same_file(folder / "killed" / "metrics.jsonl", folder / "whole" / "metrics.jsonl"));
                         });
}

TEST_CASE("train: a loss that is not finite stops the run with step and operation, and exit code 1") {
  const TemporaryFolder folder;
  const Ended e = evergrad(tiny_train(folder / "run") +
                           Args{"--method", "sgd", "--lr", "1e6", "--clip-norm", "0", "--epochs", "20"});
  check_refused(e, 1, {"diverged", "step ", "first operation with a non-finite result", "--lr"});
  CHECK(json_of(folder / "run" / "summary.json").at("diverged") == true);
}

TEST_CASE("eval: a checkpoint that is not there, not whole or of another model is refused") {
  const TemporaryFolder folder;
  check_refused(evergrad({"eval"}), 2, {"--checkpoint"});
  check_refused(evergrad({"eval", "--checkpoint", (folder / "none").string()}), 1, {"none"});
  REQUIRE(evergrad(tiny_train(folder / "run")).code == 0);
  check_refused(evergrad({"eval", "--checkpoint", (folder / "run").string(), "--dim", "32"}), 1, {"weights"});
  std::filesystem::remove_all(folder / "run" / "checkpoints");
  check_refused(evergrad({"eval", "--checkpoint", (folder / "run").string()}), 1, {"no usable checkpoint"});
}

TEST_CASE("train: real images are learned far beyond chance, from Fashion-MNIST and CIFAR-100") {
  const TemporaryFolder folder;
  const Args learn = {"--train-limit", "3000",  "--test-limit", "500", "--epochs", "3",  "--dim",     "32",
                      "--depth",       "2",     "--heads",      "2",   "--batch",  "32", "--augment", "none",
                      "--lr",          "0.003", "--classes",    "10"};
  const auto accuracy = [&](const char* name, const Args& data) {
    const Ended e = evergrad(tiny_train(folder / name) + learn + data);
    INFO(e.all());
    REQUIRE(e.code == 0);
    return json_of(folder / name / "summary.json").at("test_accuracy").get<double>();
  };
  if (std::filesystem::exists("/usr/share/datasets/fashion-mnist"))
    CHECK(accuracy("fashion", {"--stream", "idx", "--image-size", "28", "--patch", "7", "--channels", "1"}) > 0.5);
  else
    MESSAGE("SKIPPED: Fashion-MNIST needs Debian's package dataset-fashion-mnist");
  const char* const data = ::getenv("EVERGRAD_DATA");
  if (data && std::filesystem::exists(std::filesystem::path(data) / "cifar-100-binary"))
    CHECK(accuracy("cifar", {"--stream", "cifar100", "--data", data, "--image-size", "32", "--patch", "4"}) > 0.2);
  else
    MESSAGE("SKIPPED: CIFAR-100 needs the variable EVERGRAD_DATA, a folder with cifar-100-binary/");
}
