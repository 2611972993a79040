// tests/apps/test_cli_help.cpp - what the binary says about itself: help that teaches, what it can do on this machine,
// which methods and data sets there are.
#include "optim/optimizer.h"
#include "tests/apps/command.h"

using namespace eg;

namespace {
std::string said(const Args& args) {
  const Ended e = evergrad(args);
  INFO(e.all());
  CHECK(e.code == 0);
  CHECK(e.err.empty());
  return e.out;
}
void says(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) CHECK_MESSAGE(contains(text, part), "expected: ", part, "\nin:\n", text);
}
}  // namespace

TEST_CASE("help: every command explains itself with an example, and every flag of the contract is there") {
  says(said({"--help"}),
       {"continual", "train", "eval", "predict", "explain", "data", "bench", "info", "evergrad continual --stream"});
  says(said({"continual", "--help"}), {"--stream",
                                       "--data",
                                       "--protocol",
                                       "--tasks",
                                       "--classes-per-task",
                                       "--epochs",
                                       "--batch",
                                       "--methods",
                                       "--seeds",
                                       "--model",
                                       "--patch",
                                       "--image-size",
                                       "--dim",
                                       "--depth",
                                       "--heads",
                                       "--lr",
                                       "--device",
                                       "--threads",
                                       "--precision",
                                       "--out",
                                       "--resume",
                                       "--train-limit",
                                       "--test-limit",
                                       "--config",
                                       "--head",
                                       "--list-methods",
                                       "masked",
                                       "multi",
                                       "  evergrad continual --stream procedural",
                                       "--resume: it goes on to the same result"});
  says(said({"train", "--help"}), {"  evergrad train --stream", "--method", "--classes", "--ema", "--resume"});
  says(said({"eval", "--help"}), {"  evergrad eval --checkpoint", "--config"});
  says(said({"predict", "--help"}), {"evergrad predict --checkpoint", "--attention", "2005.00928", "2103.15679"});
  says(said({"explain", "--help"}),
       {"evergrad explain --model vit-b", "--tflops 790 --gbps 3000", "--trace", "--bench"});
  says(said({"data", "--help"}), {"list", "fetch", "verify", "preview", "Example: evergrad data"});
  for (const char* sub : {"fetch", "verify", "preview"})
    says(said({"data", sub, "--help"}), {std::string("Example: evergrad data ") + sub});
  says(said({"bench", "--help"}), {"--device", "--json", "--trace", "--weak-scaling", "--scaling", "--node-gb-per-s"});
  said({"info", "--help"});
  CHECK(contains(said({"--version"}), "evergrad "));
}

TEST_CASE("help: an unknown flag says which command's help to read") {
  for (const char* command : {"continual", "train", "eval", "predict", "explain", "bench", "info"})
    check_refused(evergrad({command, "--nonsense"}), 2, {std::string("evergrad ") + command + " --help"});
}

TEST_CASE("info and lists: devices, libraries, every method with its paper, every data set") {
  const std::string info = said({"info"}), methods = said({"continual", "--list-methods"});
  says(info, {"Devices", "cpu", "reference", "Libraries in this build"});
  for (const MethodInfo& m : method_list()) {
    says(info, {m.name});
    says(methods, {m.name + "  (default --lr ", m.summary, m.paper, m.options});
  }
  says(said({"data", "list"}), {"procedural", "cifar10", "cifar100", "idx", "folder", "--data DIR"});
}

TEST_CASE("preview: any protocol and task becomes a PNG; what cannot be is refused and leaves no file") {
  const TemporaryFolder folder;
  const auto sheet = folder / "sheet.png";
  for (const char* protocol : {"class-subset", "input-permutation", "domain"}) {
    said({"data", "preview", "--protocol", protocol, "--task", "2", "--rows", "2", "--columns", "3", "--image-size",
          "8", "--out", sheet.string()});
    CHECK(read_file(sheet).substr(1, 3) == "PNG");
    std::filesystem::remove(sheet);
  }
  const std::vector<std::pair<Args, std::string>> bad = {{{"--protocol", "none"}, "class-subset"},
                                                         {{"--stream", "mnist"}, "idx"},
                                                         {{"--task", "-1"}, "--task"},
                                                         {{"--corrupt", "ignore"}, "skip"},
                                                         {{"--image-size", "0"}, "--image-size"}};
  for (const auto& [flags, part] : bad)
    check_refused(evergrad(Args{"data", "preview", "--out", sheet.string()} + flags), 2, {part});
  CHECK_FALSE(std::filesystem::exists(sheet));
}
