// tests/apps/test_cli_continual.cpp - `evergrad continual` as a person runs it: every protocol, head and method, what
// it leaves in its folder, and that its numbers depend on nothing but the flags that say so.
#include <cmath>
#include <sstream>

#include "apps/run/config.h"
#include "tests/apps/command.h"

using namespace eg;

namespace {
nlohmann::json lines_of(const std::filesystem::path& file, const std::string& event = "task") {
  nlohmann::json all = nlohmann::json::array();
  std::istringstream in(read_file(file));
  for (std::string line; std::getline(in, line);) {
    nlohmann::json parsed = nlohmann::json::parse(line);
    if (parsed.at("event") == event) all.push_back(std::move(parsed));
  }
  return all;
}

/// Runs, expects success, and checks what every finished run must leave.
nlohmann::json finished(const std::filesystem::path& out, const Args& more, std::size_t runs, std::size_t tasks) {
  const Ended e = evergrad(tiny_continual(out) + more);
  INFO(e.all());
  REQUIRE(e.code == 0);
  CHECK(contains(e.out, "AAT %"));
  CHECK(contains(e.out, "AAT: mean accuracy on the task just learned"));
  CHECK(contains(e.out, "Run folder: "));
  CHECK((contains(e.out, "chart") || read_file(out / "accuracy.png").substr(1, 3) == "PNG"));
  const nlohmann::json summary = json_of(out / "summary.json");
  CHECK(summary.at("finished") == true);
  REQUIRE(summary.at("results").size() == runs);
  for (const auto& r : summary.at("results")) {
    REQUIRE(r.at("task_accuracy").size() == tasks);
    double sum = 0;
    for (const double a : r.at("task_accuracy")) {
      CHECK((a >= 0.0 && a <= 1.0));
      sum += a;
    }
    CHECK(r.at("aat").get<double>() == doctest::Approx(sum / double(tasks)).epsilon(1e-12));
    CHECK(r.at("images_per_second").get<double>() > 0);
    CHECK(r.at("wall_seconds").get<double>() > 0);
    CHECK(r.at("diverged") == false);
  }
  return summary;
}
}  // namespace

TEST_CASE("continual: every protocol runs to its table") {
  const TemporaryFolder folder;
  for (const char* protocol : {"class-subset", "class-incremental", "label-permutation", "input-permutation",
                               "random-label", "noisy-label", "domain"}) {
    INFO(std::string(protocol));
    const auto summary = finished(folder / protocol, {"--protocol", protocol}, 1, 3);
    CHECK(contains(summary.at("stream").get<std::string>(), protocol));
  }
  finished(folder / "two", {"--protocol", "class-subset", "--then", "input-permutation"}, 1, 6);
}

TEST_CASE("continual: every stream option changes the stream") {
  const TemporaryFolder folder;
  const auto accuracies = [&](const char* name, const Args& more) {
    finished(folder / name, more, 1, 3);
    return lines_of(folder / name / "metrics.jsonl");
  };
  const Args permute = {"--protocol", "input-permutation"};
  const auto pixels = accuracies("pixels", permute);
  CHECK(pixels != accuracies("within", permute + Args{"--shuffle", "within-patch"}));
  CHECK(pixels != accuracies("order", permute + Args{"--shuffle", "patch-order"}));
  const Args domain = {"--protocol", "domain"};
  const auto rotation = accuracies("rotation", domain);
  for (const char* d : {"hue", "contrast", "blur", "noise", "inversion"})
    CHECK(rotation != accuracies(d, domain + Args{"--domain", d}));
  const auto plain = accuracies("plain", {});
  CHECK(plain != accuracies("iid", {"--draw", "iid"}));
  CHECK(plain == accuracies("deck", {"--draw", "deck"}));  // the first round of a deck is disjoint
}

TEST_CASE("continual: every head runs, and each but auto's own gives its own numbers") {
  const TemporaryFolder folder;
  const auto losses = [&](const std::string& head, const std::string& protocol) {
    const auto path = folder / (protocol + "-" + head);
    finished(path, {"--head", head, "--protocol", protocol, "--epochs", "3"}, 1, 3);
    nlohmann::json all = nlohmann::json::array();
    for (const auto& line : lines_of(path / "metrics.jsonl")) all.push_back(line.at("test_loss"));
    return all;
  };
  const auto automatic = losses("auto", "class-subset"), fresh = losses("fresh", "class-subset");
  CHECK(automatic == fresh);
  std::vector<nlohmann::json> seen{fresh};
  for (const char* head : {"zero", "keep", "masked", "multi"}) {
    INFO(head);
    seen.push_back(losses(head, "class-subset"));
    for (std::size_t i = 0; i + 1 < seen.size(); ++i) CHECK(seen[i] != seen.back());
  }
  const auto growing = losses("growing", "class-incremental");
  CHECK(growing == losses("auto", "class-incremental"));
  CHECK(growing != losses("masked", "class-incremental"));
}

TEST_CASE("continual: where classes arrive, accuracy is given for the new classes and for all so far") {
  const TemporaryFolder folder;
  const auto summary = finished(folder / "run", {"--protocol", "class-incremental", "--test-limit", "60"}, 1, 3);
  const auto& result = summary.at("results").at(0);
  const auto& seen = result.at("seen_accuracy");
  REQUIRE(seen.size() == 3);
  CHECK(seen[0] == result.at("task_accuracy")[0]);
  const auto lines = lines_of(folder / "run" / "metrics.jsonl");
  const std::vector<int> own = {60, 30, 20};  // the limit, shared by the classes so far
  for (std::size_t t = 0; t < 3; ++t) {
    CHECK(lines[t].at("test_images") == own[t]);
    CHECK(lines[t].at("test_accuracy") == result.at("task_accuracy")[t]);
    if (t > 0) CHECK(lines[t].at("seen_accuracy") == seen[t]);
  }
  finished(folder / "all", {"--protocol", "class-incremental", "--train-on", "seen"}, 1, 3);
  CHECK(lines != lines_of(folder / "all" / "metrics.jsonl"));
}

TEST_CASE("continual: methods with options, several seeds, and the per-block diagnosis") {
  const TemporaryFolder folder;
  const auto summary =
      finished(folder / "run",
               {"--methods", "adamw:beta2=0.99,sgd,arrow:blocks=0:window=3", "--seeds", "1,4-5", "--depth", "2"}, 9, 3);
  std::vector<std::string> order;
  for (const auto& r : summary.at("results"))
    order.push_back(cat(r.at("method").get<std::string>(), " ", r.at("seed").get<int>()));
  CHECK(order == std::vector<std::string>{"adamw:beta2=0.99 1", "adamw:beta2=0.99 4", "adamw:beta2=0.99 5", "sgd 1",
                                          "sgd 4", "sgd 5", "arrow:blocks=0:window=3 1", "arrow:blocks=0:window=3 4",
                                          "arrow:blocks=0:window=3 5"});
  CHECK(lines_of(folder / "run" / "metrics.jsonl").size() == 27);
  const auto lines = lines_of(folder / "run" / "metrics.jsonl", "diagnosis");
  CHECK(lines.size() == 27);
  for (const auto& line : lines) {
    const auto& blocks = line.at("blocks");
    for (const char* key : {"tokens.effective_rank", "units.active", "weight.norm", "gradient.norm", "weight.v.norm",
                            "weight.fc2.update_ratio", "gradient.q.norm", "attention.entropy"}) {
      INFO(std::string(key));
      REQUIRE(blocks.at(key).size() == 2);  // one number per block
      for (const double v : blocks.at(key)) CHECK((std::isfinite(v) && v > 0));
    }
    CHECK(blocks.contains("attention.drift_task") == (line.at("task").get<int>() > 1));
    CHECK(line.at("model").at("features.effective_rank").get<double>() >= 1.0);
  }
}

TEST_CASE(
    "continual: every method's settings are said before the first task, with the network where it is another one") {
  const TemporaryFolder folder;
  const Ended e = evergrad(tiny_continual(folder / "run") +
                           Args{"--methods", "adamw,arrow:blocks=0,crelu", "--tasks", "1", "--epochs", "1"});
  INFO(e.all());
  REQUIRE(e.code == 0);
  const auto count = [&](const std::string& text) {
    int n = 0;
    for (auto at = e.all().find(text); at != std::string::npos; at = e.all().find(text, at + 1)) ++n;
    return n;
  };
  CHECK(count("adamw: AdamW lr") == 1);
  CHECK(count("arrow:blocks=0: ARROW on qkvo of blocks 0") == 1);
  CHECK(count("of gradient, windows, moments and weights") == 1);
  CHECK(count("crelu: ") == 1);
  CHECK(count("ViT 8/4") == 2);  // adamw's and arrow's, and that of crelu
}

TEST_CASE("continual: a diagnosis comes when asked for, and its cadence changes no result") {
  const TemporaryFolder folder;
  const auto places = [&](const char* cadence) {
    const auto path = folder / cadence;
    finished(path, {"--probe", cadence}, 1, 3);  // 6 updates per task
    std::vector<std::pair<int, int>> all;
    for (const auto& line : lines_of(path / "metrics.jsonl", "diagnosis"))
      all.push_back({line.at("task").get<int>(), line.value("step", 0)});
    CHECK(outcome(path) == outcome(folder / "every-task"));
    return all;
  };
  using Places = std::vector<std::pair<int, int>>;
  CHECK(places("every-task") == Places{{1, 0}, {2, 0}, {3, 0}});
  CHECK(places("every-2-tasks") == Places{{2, 0}});
  CHECK(places("every-4-steps") == Places{{1, 4}, {1, 0}, {2, 4}, {2, 0}, {3, 4}, {3, 0}});
  CHECK(places("none").empty());
  for (const char* bad : {"every-0-tasks", "every--tasks", "sometimes", "every-2-epochs"})
    check_refused(evergrad(tiny_continual(folder / "no") + Args{"--probe", bad}), 2, {"--probe", bad, "every-N-tasks"});
}

TEST_CASE("continual: learning curves, online accuracy and forward transfer are what their lists say") {
  const TemporaryFolder folder;
  const auto summary = finished(folder / "run", {"--test-during", "--test-earlier", "--head", "keep"}, 1, 3);
  const auto& result = summary.at("results").at(0);
  const auto lines = lines_of(folder / "run" / "metrics.jsonl");
  for (std::size_t t = 0; t < 3; ++t) {
    const auto curve = lines[t].at("test_curve").get<std::vector<double>>();
    REQUIRE(curve.size() == 3);  // before, after the first epoch, at the end
    CHECK(curve[2] == lines[t].at("test_accuracy").get<double>());
    CHECK(curve[0] == result.at("before_accuracy")[t].get<double>());  // the head is kept: nothing happens in between
    CHECK(result.at("area_under_curve")[t].get<double>() ==
          doctest::Approx((curve[0] + curve[2]) / 4 + curve[1] / 2).epsilon(1e-12));
    const auto epochs = lines[t].at("accuracy_by_epoch").get<std::vector<double>>();
    REQUIRE(epochs.size() == 2);
    CHECK(epochs[1] == lines[t].at("train_accuracy").get<double>());
    CHECK(lines[t].at("online_accuracy").get<double>() == doctest::Approx((epochs[0] + epochs[1]) / 2).epsilon(1e-12));
  }
  const auto before = result.at("before_accuracy").get<std::vector<double>>(),
             untrained = result.at("untrained_accuracy").get<std::vector<double>>();
  REQUIRE(untrained.size() == 3);
  CHECK(untrained[0] == before[0]);
  CHECK(result.at("forward_transfer").get<double>() ==
        doctest::Approx((before[1] - untrained[1] + before[2] - untrained[2]) / 2).epsilon(1e-12));
}

TEST_CASE("continual: a repeated run, other workers and no diagnosis give the same numbers, bit for bit") {
  const TemporaryFolder folder;
  const Args methods = {"--methods", "adamw,arrow", "--augment", "crop-flip", "--probe-images", "20"};
  finished(folder / "first", methods, 2, 3);
  const auto expected = outcome(folder / "first");
  const std::vector<std::pair<const char*, Args>> variants = {{"again", {}},
                                                              {"workers", {"--workers", "2"}},
                                                              {"no-probe", {"--probe-images", "0"}},
                                                              {"saves", {"--checkpoint-seconds", "0"}}};
  for (const auto& [name, more] : variants) {
    const std::string shown = name;  // clang 14 cannot capture a structured binding, which INFO would
    INFO(shown);
    finished(folder / name, methods + more, 2, 3);
    CHECK(outcome(folder / name) == expected);
  }
  const auto losses = [&](const char* name) {
    nlohmann::json all = nlohmann::json::array();
    for (const auto& line : lines_of(folder / name / "metrics.jsonl"))
      all.push_back({line.at("train_loss"), line.at("test_loss")});
    return all;
  };
  for (const auto& [name, more] : variants) CHECK(losses(name) == losses("first"));
}

TEST_CASE("continual: config.toml is fully resolved and repeats the run") {
  const TemporaryFolder folder;
  const Args few = {"continual", "--tasks",      "2", "--epochs",  "1",         "--train-limit",
                    "16",        "--test-limit", "8", "--seeds",   "2-3",       "--image-size",
                    "8",         "--depth",      "1", "--methods", "adamw,sgd", "--classes-per-task",
                    "2"};
  const Ended first = evergrad(few + Args{"--out", (folder / "a").string()});
  INFO(first.all());
  REQUIRE(first.code == 0);
  const Config c = Config::read(folder / "a" / "config.toml");
  CHECK(c.whole("dim") == 192);  // vit-ti's
  CHECK(c.whole("depth") == 1);
  CHECK(c.whole("heads") == 3);
  CHECK(c.whole("threads") >= 1);
  CHECK(c.text("head") == "fresh");
  CHECK(c.text("draw") == "disjoint");
  CHECK(c.text("seeds") == "2,3");
  CHECK((c.text("precision") == "fp32" || c.text("precision") == "bf16"));
  const std::string config = (folder / "a" / "config.toml").string();
  const Ended second = evergrad({"continual", "--config", config, "--out", (folder / "b").string()});
  INFO(second.all());
  REQUIRE(second.code == 0);
  CHECK(outcome(folder / "a") == outcome(folder / "b"));
  CHECK(read_file(folder / "a" / "config.toml") == read_file(folder / "b" / "config.toml"));
  REQUIRE(evergrad({"continual", "--config", config, "--seeds", "3", "--out", (folder / "c").string()}).code == 0);
  CHECK(outcome(folder / "c").size() == 2);  // a flag on the command line wins over the file
  CHECK(outcome(folder / "c")[0] == outcome(folder / "a")[1]);
}

TEST_CASE("continual: earlier tasks are tested when asked, each with its head, and nothing else changes") {
  const TemporaryFolder folder;
  for (const char* head : {"multi", "keep", "masked"}) {
    const std::string shown = head;
    INFO(shown);
    const Args flags = {"--head", head, "--epochs", "4", "--lr", "0.01"};
    finished(folder / (shown + "-plain"), flags, 1, 3);
    const auto summary = finished(folder / shown, flags + Args{"--test-earlier"}, 1, 3);
    CHECK(outcome(folder / shown) == outcome(folder / (shown + "-plain")));
    const auto& result = summary.at("results").at(0);
    const auto matrix = result.at("accuracy_matrix").get<std::vector<std::vector<double>>>();
    REQUIRE(matrix.size() == 3);
    double backward = 0.0;
    for (std::size_t i = 0; i < 3; ++i) {
      REQUIRE(matrix[i].size() == i + 1);
      CHECK(matrix[i][i] == result.at("task_accuracy")[i].get<double>());
      if (i < 2) backward += (matrix[2][i] - matrix[i][i]) / 2;
    }
    CHECK(result.at("backward_transfer").get<double>() == doctest::Approx(backward).epsilon(1e-12));
    const auto lines = lines_of(folder / shown / "metrics.jsonl");
    CHECK(lines[2].at("accuracy_by_task").get<std::vector<double>>() == matrix[2]);
  }
  const auto incremental =
      finished(folder / "growing", {"--protocol", "class-incremental", "--test-limit", "60", "--test-earlier"}, 1, 3);
  const auto& grown = incremental.at("results").at(0);
  const auto last = grown.at("accuracy_matrix").at(2).get<std::vector<double>>();
  CHECK(last[2] == grown.at("task_accuracy")[2].get<double>());
  check_refused(evergrad(tiny_continual(folder / "no") + Args{"--test-earlier"}), 2,
                {"--test-earlier", "--head fresh"});
  check_refused(evergrad(tiny_continual(folder / "no") + Args{"--test-earlier", "--head", "multi", "--ema", "0.9"}), 2,
                {"--ema", "multi"});
}

TEST_CASE("eval: repeats the tests of a continual run from its checkpoint, the earlier tasks' included") {
  const TemporaryFolder folder;
  const auto table = [&](const Args& more) {
    const Ended e = evergrad(Args{"eval", "--checkpoint"} + more);
    INFO(e.all());
    REQUIRE(e.code == 0);
    return e.out;
  };
  const auto percent = [](double a) {
    char text[32];
    std::snprintf(text, sizeof text, " %.2f ", 100 * a);
    return std::string(text);
  };
  const std::vector<std::pair<const char*, Args>> variants = {
      {"multi", {"--head", "multi"}}, {"fresh", {"--head", "fresh"}}, {"average", {"--head", "keep", "--ema", "0.5"}}};
  for (const auto& [name, more] : variants) {
    const std::string shown = name;  // clang 14 cannot capture a structured binding, which INFO would
    INFO(shown);
    const auto out = folder / shown;
    const bool earlier = shown != "fresh";
    const auto summary = finished(
        out,
        more + Args{"--epochs", "4", "--lr", "0.01", "--seeds", "1-2"} + (earlier ? Args{"--test-earlier"} : Args{}), 2,
        3);
    const std::string text = table({out.string()});
    CHECK(contains(text, "adamw, seed 2, after task 3 of 3"));
    const auto& result = summary.at("results").at(1);
    CHECK(contains(text, percent(result.at("task_accuracy")[2].get<double>())));
    if (!earlier) continue;
    for (const double a : result.at("accuracy_matrix")[2]) CHECK(contains(text, percent(a)));
  }
  CHECK(table({(folder / "multi").string(), "--threads", "1", "--device", "cpu"}) ==
        table({(folder / "multi").string()}));
  check_refused(evergrad({"eval", "--checkpoint", (folder / "multi").string(), "--method", "sgd"}), 2, {"--method"});
}
