// tests/apps/test_cli_streams.cpp - `evergrad continual` over streams whose tasks differ in kind: 5+1, folders of classes,
// several data sets, gradual shifts, a fixed number of updates; what they count, and that a killed one goes on exactly.
#include <cmath>
#include <sstream>

#include "tests/apps/command.h"
#include "tests/data/files.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {

nlohmann::json tasks_of(const fs::path& run) {
  nlohmann::json all = nlohmann::json::array();
  std::istringstream in(read_file(run / "metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    nlohmann::json parsed = nlohmann::json::parse(line);
    if (parsed.at("event") == "task") all.push_back(std::move(parsed));
  }
  return all;
}

Ended finished(const Args& args) {
  Ended e = evergrad(args);
  INFO(e.all());
  REQUIRE(e.code == 0);
  return e;
}

/// Alphabets of 2, 3 and 4 characters with eight drawings each.
void write_alphabets(const fs::path& root) {
  for (const auto& [alphabet, characters] : std::map<std::string, int>{{"Greek", 4}, {"Korean", 2}, {"Latin", 3}})
    for (int c = 0; c < characters; ++c)
      for (int i = 0; i < 8; ++i) {
        const fs::path folder = root / alphabet / ("character" + std::to_string(c));
        fs::create_directories(folder);
        write_file(folder / (std::to_string(i) + ".bmp"), test::bmp(6, 6, 60 * c, 8 * i, 255 - 60 * c));
      }
}

}  // namespace

TEST_CASE("5+1: easy tasks are marked, take as many updates, and count in no average") {
  const TemporaryFolder folder;
  const Args flags = {"--protocol", "5+1",     "--stream", "sequence:procedural", "--tasks", "5", "--classes-per-task",
                      "3",          "--steps", "5",        "--test-during"};
  const Ended e = finished(tiny_continual(folder / "run") + flags);
  CHECK(contains(e.out, "leave out the 2 easy tasks"));
  const auto lines = tasks_of(folder / "run");
  REQUIRE(lines.size() == 5);
  for (std::size_t t = 0; t < 5; ++t) {
    CHECK(lines[t].value("easy", false) == (t % 2 == 1));
    CHECK(lines[t].at("updates") == 5 * (t + 1));
  }
  const auto result = json_of(folder / "run" / "summary.json").at("results")[0];
  const auto& a = result.at("task_accuracy");
  CHECK(result.at("easy_tasks") == nlohmann::json{2, 4});
  CHECK(result.at("aat").get<double>() ==
        doctest::Approx((a[0].get<double>() + a[2].get<double>() + a[4].get<double>()) / 3).epsilon(1e-12));
  CHECK(contains(read_file(folder / "run" / "config.toml"), "head = \"keep\""));
  finished({"report", (folder / "run").string(), "--tables", (folder / "tables").string()});
  const auto group = json_of(folder / "tables" / "report.json").at("groups")[0];
  CHECK(group.at("easy") == nlohmann::json{false, true, false, true, false});
  CHECK(group.at("methods")[0].at("summary").at("aat").at("mean").get<double>() ==
        doctest::Approx(result.at("aat").get<double>()).epsilon(1e-5));  // it holds six digits
  CHECK_FALSE(group.contains("chance"));
}

TEST_CASE("groups: an alphabet a task, the share of test drawings chosen, and one line in the report per task") {
  const TemporaryFolder folder;
  write_alphabets(folder / "data");
  const Args flags = {"--stream",     "folder", "--data",        (folder / "data").string(),
                      "--protocol",   "groups", "--test-share",  "0.25",
                      "--tasks",      "3",      "--train-limit", "0",
                      "--test-limit", "0"};
  finished(tiny_continual(folder / "run") + flags);
  std::map<std::string, int> images;
  for (const auto& line : tasks_of(folder / "run"))
    images[line.at("name").get<std::string>().substr(8)] = line.at("test_images");
  CHECK(images ==
        std::map<std::string, int>{{"Greek, 4 classes", 8}, {"Korean, 2 classes", 4}, {"Latin, 3 classes", 6}});
  for (const char* head : {"masked", "multi"})
    finished(tiny_continual(folder / head) + flags + Args{"--head", head, "--test-earlier"});
  check_refused(evergrad(tiny_continual(folder / "more") + flags + Args{"--draw", "disjoint", "--tasks", "4"}), 2,
                {"--tasks 3 or fewer"});
  check_refused(evergrad(tiny_continual(folder / "flat") + Args{"--protocol", "groups", "--stream", "idx"}), 2,
                {"classes that lie in folders"});
}

TEST_CASE("sequence: data sets in turn and interleaved, brought to one format; wrong parts are named") {
  const TemporaryFolder folder;
  write_alphabets(folder / "omniglot");
  const std::string stream = "sequence:procedural+omniglot=" + (folder / "omniglot").string();
  const Args flags = {"--stream", stream, "--tasks", "4"};
  const auto names = [&](const char* order) {
    finished(tiny_continual(folder / order) + flags + Args{"--order", order});
    std::string text;
    for (const auto& line : tasks_of(folder / order))
      text += contains(line.at("name").get<std::string>(), "procedural/") ? 'p' : 'o';
    return text;
  };
  CHECK(names("in-turn") == "ppoo");
  CHECK(names("interleaved") == "popo");
  finished(tiny_continual(folder / "mixed") + flags + Args{"--order", "mixed", "--head", "multi"});
  check_refused(evergrad(tiny_continual(folder / "x") + Args{"--stream", "sequence:procedural+mnist"}), 2,
                {"unknown part 'mnist'"});
  const Ended bad = evergrad(tiny_continual(folder / "x") + Args{"--stream", "imagenet"});
  CHECK(bad.code != 0);
}

TEST_CASE("domain: a gradual shift gives other numbers than an abrupt one; both tell how deep accuracy dips") {
  const TemporaryFolder folder;
  // 30 updates per task: a dip needs 20.
  const Args flags = {"--protocol", "domain", "--domain", "contrast", "--head", "keep", "--epochs", "10"};
  const Ended abrupt = finished(tiny_continual(folder / "abrupt") + flags);
  CHECK(contains(abrupt.out, "at a shift, accuracy dips by"));
  finished(tiny_continual(folder / "gradual") + flags + Args{"--shift", "gradual"});
  const auto a = tasks_of(folder / "abrupt"), g = tasks_of(folder / "gradual");
  CHECK(a[0] == g[0]);  // nothing has shifted yet
  CHECK(a[1].at("train_loss") != g[1].at("train_loss"));
  CHECK_FALSE(a[0].contains("dip_depth"));
  const auto result = json_of(folder / "abrupt" / "summary.json").at("results")[0];
  REQUIRE(result.at("dip_depths").size() == 3);
  CHECK(result.at("dip_depths")[0].is_null());
  for (std::size_t t = 1; t < 3; ++t) {
    CHECK(result.at("dip_depths")[t] == a[t].at("dip_depth"));
    CHECK(std::abs(a[t].at("dip_depth").get<double>()) <= 1.0);
    CHECK(a[t].at("recovery_steps").get<double>() <= 30.0);
  }
  finished(tiny_continual(folder / "short") + flags + Args{"--steps", "4"});
  CHECK_FALSE(tasks_of(folder / "short")[1].contains("dip_depth"));  // four updates cannot tell
  CHECK(json_of(folder / "short" / "summary.json").at("results")[0].at("dip_depth").is_null());
  check_refused(evergrad(tiny_continual(folder / "x") + flags + Args{"--domain", "inversion", "--shift", "gradual"}), 2,
                {"inversion"});
}

TEST_CASE("streams: kill -9 at random moments changes no result, whatever the tasks are") {
  const TemporaryFolder folder;
  write_alphabets(folder / "omniglot");
  const std::string sequence = "sequence:procedural+omniglot=" + (folder / "omniglot").string();
  const std::map<std::string, Args> streams = {
      {"pairs", {"--protocol", "5+1", "--stream", "sequence:procedural", "--tasks", "4", "--steps", "7"}},
      {"gradual", {"--protocol", "domain", "--shift", "gradual", "--head", "keep", "--epochs", "8", "--mixup", "0.2"}},
      {"sequence", {"--stream", sequence, "--order", "interleaved", "--tasks", "4", "--steps", "5"}}};
  for (const auto& [name, flags] : streams) {
    INFO(name);
    const Args all = flags + Args{"--checkpoint-seconds", "0", "--probe-images", "8"};
    const fs::path whole = folder / ("whole-" + name), killed = folder / "killed";
    finished(tiny_continual(whole) + all);
    kill_at_random_moments(tiny_continual(killed) + all + Args{"--resume"}, killed, repetitions(2, 4, 12), 150, [&] {
      CHECK(outcome(killed) == outcome(whole));
      CHECK(same_file(killed / "metrics.jsonl", whole / "metrics.jsonl"));
    });
    fs::remove_all(killed);
  }
}
