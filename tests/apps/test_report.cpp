// tests/apps/test_report.cpp - statistics over seeds, run folders read back in every state, and what a report makes of
// them. The page itself is opened in a browser by tests/scripts/test_report.py.
#include "apps/report/report.h"

#include <cmath>

#include "apps/continual/statistics.h"
#include "apps/embedded.h"
#include "apps/report/names.h"
#include "engine/error.h"
#include "engine/rng.h"
#include "tests/apps/command.h"

using namespace eg;
using doctest::Approx;
using Values = std::vector<double>;
namespace fs = std::filesystem;

TEST_CASE("statistics: Student's distribution gives its tabulated quantiles") {
  CHECK(student_quantile(0.975, 1) == Approx(12.7062047).epsilon(1e-8));
  CHECK(student_quantile(0.975, 4) == Approx(2.7764451).epsilon(1e-8));
  CHECK(student_quantile(0.95, 10) == Approx(1.8124611).epsilon(1e-8));
  CHECK(student_quantile(0.975, 1e6) == Approx(1.959966).epsilon(1e-6));
  CHECK(student_cdf(0.0, 3) == Approx(0.5));
  CHECK(student_cdf(1.0, 1) == Approx(0.75).epsilon(1e-12));  // Cauchy: 1/2 + atan(1) / pi
  CHECK(student_cdf(-1.0, 1) == Approx(0.25).epsilon(1e-12));
}

TEST_CASE("statistics: intervals and paired tests of hand-computed samples") {
  const Interval i = mean_interval(Values{1, 2, 3, 4, 5});
  CHECK(i.mean == 3.0);
  CHECK(i.deviation == Approx(std::sqrt(2.5)));
  CHECK(i.high == Approx(3.0 + 2.7764451 * std::sqrt(0.5)).epsilon(1e-8));
  CHECK(i.low == Approx(3.0 - 2.7764451 * std::sqrt(0.5)).epsilon(1e-8));
  CHECK(std::isnan(mean_interval(Values{1}).low));
  CHECK(std::isnan(mean_interval(Values{}).mean));
  // The bootstrap knows the sample only: it lies within it, is repeatable, and collapses where all values are equal.
  const Interval b = bootstrap_interval(Values{1, 2, 3, 4, 5});
  CHECK(b.low == Approx(1.8).epsilon(0.15));
  CHECK(b.high == Approx(4.2).epsilon(0.15));
  CHECK(b.low == bootstrap_interval(Values{1, 2, 3, 4, 5}).low);
  CHECK(bootstrap_interval(Values{2, 2, 2}).high == 2.0);

  const PairedTest t = paired_test(Values{3, 5, 4, 8}, Values{1, 2, 3, 4});  // differences 2, 3, 1, 4
  CHECK(t.difference.mean == Approx(2.5));
  CHECK(t.p == Approx(2.0 * student_cdf(-2.5 / (std::sqrt(5.0 / 3.0) / 2.0), 3)).epsilon(1e-12));
  CHECK(t.p == Approx(0.0305).epsilon(0.01));
  CHECK(t.p_exact == Approx(2.0 / 16.0));  // only the sample itself and its mirror image are as far out
  CHECK(paired_test(Values{1, 2}, Values{1, 2}).p == 1.0);
  CHECK(std::isnan(paired_test(Values{1}, Values{2}).p));
  CHECK_THROWS_AS(paired_test(Values{1}, Values{1, 2}), Error);
}

TEST_CASE("statistics: a 95% interval covers the truth in 95 of 100 samples") {
  int covered = 0;
  for (std::uint32_t s = 0; s < 2000; ++s) {
    Values v;
    for (std::uint64_t i = 0; i < 5; ++i) v.push_back(key(5, "test", "coverage", s).normal(i));
    const Interval i = mean_interval(v);
    covered += i.low <= 0.0 && 0.0 <= i.high;
  }
  CHECK(std::abs(covered - 1900) < 4 * std::sqrt(2000 * 0.95 * 0.05));  // four standard errors
}

namespace {
/// A build without d3 draws no page; what it says instead is checked where it is.
bool draws_pages() {
  if (!embedded("d3.min.js").empty()) return true;
  MESSAGE("SKIPPED: this build has no d3 (Debian: node-d3)");
  return false;
}
nlohmann::json data_of(const std::vector<fs::path>& folders) {
  std::vector<RecordedFolder> all;
  for (const fs::path& f : folders) all.push_back(read_run_folder(f));
  return report_data(all, "test", "today");
}
const nlohmann::json& method(const nlohmann::json& group, const std::string& name) {
  for (const auto& m : group.at("methods"))
    if (m.at("name") == name) return m;
  FAIL(name);
  return group;
}
}  // namespace

TEST_CASE("report: what the page shows is what the runs logged") {
  const TemporaryFolder folder;
  const Args flags = {"--methods", "adamw,sgd,fresh", "--seeds", "1-3", "--test-during"};
  REQUIRE(evergrad(tiny_continual(folder / "run") + flags).code == 0);
  const auto summary = json_of(folder / "run" / "summary.json");
  const auto data = data_of({folder / "run"});
  REQUIRE(data.at("groups").size() == 1);
  CHECK(data.at("problems").empty());
  const auto& g = data.at("groups")[0];
  CHECK(g.at("name") == summary.at("stream"));
  CHECK(g.at("chance") == 0.5);
  CHECK(g.at("notices").empty());
  Values adamw, fresh;
  for (const auto& r : summary.at("results")) {
    if (r.at("method") == "adamw") adamw.push_back(r.at("aat"));
    if (r.at("method") == "fresh") fresh.push_back(r.at("aat"));
  }
  const auto& m = method(g, "adamw");
  CHECK(m.at("settings").get<std::string>().find("AdamW") != std::string::npos);
  CHECK(m.at("summary").at("aat").at("mean").get<double>() == Approx(mean_interval(adamw).mean).epsilon(1e-4));
  CHECK(m.at("summary").at("aat").at("high").get<double>() == Approx(mean_interval(adamw).high).epsilon(1e-4));
  double gap = 0.0;
  for (std::size_t s = 0; s < 3; ++s) gap += (fresh[s] - adamw[s]) / 3;
  CHECK(m.at("summary").at("gap").at("mean").get<double>() == Approx(gap).epsilon(1e-4));
  CHECK_FALSE(method(g, "fresh").at("summary").contains("gap"));
  REQUIRE(m.at("seeds").size() == 3);
  CHECK(m.at("seeds")[0].at("status") == "finished");
  CHECK(m.at("seeds")[0].at("curves").size() == 3);
  CHECK(m.at("seeds")[0].at("diagnosis").at("tasks") == nlohmann::json({1, 2, 3}));
  CHECK(m.at("seeds")[0].at("diagnosis").at("blocks").at("weight.v.norm").size() == 3);
  CHECK_FALSE(m.at("seeds")[1].contains("diagnosis"));  // the first holds the mean over seeds
  bool tested = false;
  for (const auto& t : g.at("tests"))
    if (t.at("measure") == "aat" && t.at("a") == "adamw" && t.at("b") == "fresh") {
      CHECK(t.at("difference").get<double>() == Approx(-gap).epsilon(1e-3));
      CHECK(t.at("n") == 3);
      tested = true;
    }
  CHECK(tested);
}

TEST_CASE("report: runs that were killed, diverged or never began are shown as such and left out of means") {
  const TemporaryFolder folder;
  const fs::path run = folder / "run";
  const Ended e =
      evergrad(tiny_continual(run) + Args{"--methods", "adamw,sgd:lr=1e6", "--seeds", "1,2", "--epochs", "4"});
  INFO(e.all());
  // As a kill leaves it: the second adamw run half done, its last line torn, no summary.
  std::string log = read_file(run / "metrics.jsonl"), cut;
  std::size_t lines = 0;
  for (std::size_t at = 0, end; (end = log.find('\n', at)) != std::string::npos; at = end + 1) {
    const std::string line = log.substr(at, end - at + 1);
    const auto j = nlohmann::json::parse(line);
    if (j.at("method") == "adamw" && j.at("seed") == 2 && j.value("task", 0) > 1) continue;
    cut += line, ++lines;
  }
  write_file(run / "metrics.jsonl", cut + "{\"event\":\"task\",\"meth");
  fs::remove(run / "summary.json");
  const auto data = data_of({run});
  const auto& g = data.at("groups")[0];
  CHECK(data.at("problems").size() == 1);
  CHECK(contains(data.at("problems")[0].get<std::string>(), "not a JSON object"));
  const auto& adamw = method(g, "adamw");
  CHECK(adamw.at("seeds")[0].at("status") == "unfinished");  // no summary says that it is finished
  CHECK(adamw.at("seeds")[0].at("measures").at("task_accuracy").size() == 3);
  CHECK(adamw.at("seeds")[1].at("measures").at("task_accuracy").size() == 1);
  const auto& sgd = method(g, "sgd");
  CHECK(sgd.at("seeds")[0].at("status") == "diverged");
  CHECK_FALSE(sgd.at("summary").contains("aat"));
  std::string notices;
  for (const auto& n : g.at("notices")) notices += n.get<std::string>() + "\n";
  CHECK(contains(notices, "adamw, seed 2: interrupted or still running, 1 of 3 tasks"));
  CHECK(contains(notices, "sgd, seed 1: diverged in task 1"));
  if (!draws_pages()) return;
  CHECK(evergrad({"report", run.string(), "--out", (folder / "page.html").string()}).code == 0);
  CHECK(read_file(folder / "page.html").size() > 100000);
}

TEST_CASE("report: folders of different protocols are never averaged, the same method at other rates stays apart") {
  const TemporaryFolder folder;
  const auto run = [&](const char* name, const Args& flags) {
    REQUIRE(evergrad(tiny_continual(folder / name) + flags).code == 0);
    return folder / name;
  };
  const fs::path a = run("a", {}), more = run("more", {"--seeds", "2"}), faster = run("faster", {"--lr", "0.01"}),
                 longer = run("longer", {"--epochs", "3"});
  auto data = data_of({a, more});
  REQUIRE(data.at("groups").size() == 1);
  CHECK(data.at("groups")[0].at("methods").size() == 1);
  CHECK(method(data.at("groups")[0], "adamw").at("summary").at("aat").at("n") == 2);
  data = data_of({a, faster});
  REQUIRE(data.at("groups").size() == 1);
  CHECK(data.at("groups")[0].at("methods").size() == 2);
  CHECK(method(data.at("groups")[0], "adamw (faster)").at("summary").at("aat").at("n") == 1);
  REQUIRE(data.at("groups")[0].at("differences").size() == 1);
  CHECK(data.at("groups")[0].at("differences")[0].at("key") == "lr");
  data = data_of({a, longer});
  CHECK(data.at("groups").size() == 2);
  CHECK(contains(data.at("problems")[0].get<std::string>(), "2 different protocols"));
  write_tables(data, folder / "tables");
  CHECK(contains(read_file(folder / "tables" / "summary.csv"), "(protocol 2)"));
  // Folders of one name are told apart by their paths: nothing is averaged over rates, and nothing is hidden.
  fs::create_directories(folder / "b");
  const fs::path namesake = run("b/faster", {"--lr", "0.1", "--seeds", "2"});
  data = data_of({a, faster, namesake});
  REQUIRE(data.at("groups").size() == 1);
  CHECK(data.at("groups")[0].at("methods").size() == 3);
  for (const auto& m : data.at("groups")[0].at("methods")) CHECK(m.at("summary").at("aat").at("n") == 1);
  data = data_of({a, a});  // the same runs twice are not two seeds
  CHECK(data.at("groups")[0].at("methods").size() == 2);
}

TEST_CASE("report: methods are called by what tells them apart, and their whole text is kept") {
  using Names = std::vector<std::string>;
  CHECK(report::short_names({"adamw", "arrow"}) == Names{"adamw", "arrow"});
  CHECK(report::short_names({"adamw:lr=1e-4+nap", "adamw:lr=1e-4", "sgd:lr=0.1:momentum=0"}) ==
        Names{"adamw+nap", "adamw", "sgd"});
  CHECK(report::short_names({"adamw:lr=1e-4:weight-decay=0", "adamw:lr=1e-3:weight-decay=0"}) ==
        Names{"adamw:lr=1e-4", "adamw:lr=1e-3"});
  CHECK(report::short_names({"adamw", "adamw:lr=1e-3", "adamw"}) == Names{"adamw", "adamw:lr=1e-3", "adamw"});
  CHECK(report::short_names({"arrow:blocks=1-2+3:lr=1e-4", "arrow:blocks=0+1:lr=1e-4", "adamw:lr=1e+0"}) ==
        Names{"arrow:blocks=1-2+3", "arrow:blocks=0+1", "adamw"});
  CHECK(report::short_names({"nap", "nosuch:x=1+2"}) == Names{"nap", "nosuch:x=1+2"});
  CHECK(report::short_names({"adamw:lr=1+l2:strength=2", "adamw:lr=2+l2:strength=2"}) ==
        Names{"adamw:lr=1+l2", "adamw:lr=2+l2"});
  const Names same_but_for_order = {"sgd:lr=1:momentum=0", "sgd:momentum=0:lr=1"};
  CHECK(report::short_names(same_but_for_order) == same_but_for_order);
  CHECK(report::short_names({}).empty());

  const TemporaryFolder folder;
  REQUIRE(evergrad(tiny_continual(folder / "run") + Args{"--methods", "adamw:lr=1e-3,adamw:lr=1e-3+nap"}).code == 0);
  const auto data = data_of({folder / "run"});
  const auto& g = data.at("groups")[0];
  CHECK(contains(method(g, "adamw+nap").at("settings").get<std::string>(), "adamw:lr=1e-3+nap: "));
  CHECK(contains(method(g, "adamw").at("settings").get<std::string>(), "adamw:lr=1e-3: "));
}

TEST_CASE("report: the command writes a page and tables, and says what is no run folder") {
  const TemporaryFolder folder;
  REQUIRE(evergrad(tiny_continual(folder / "run") + Args{"--seeds", "1,2", "--methods", "adamw,sgd"}).code == 0);
  if (!draws_pages()) {
    check_refused(evergrad({"report", (folder / "run").string()}), 1, {"without d3", "node-d3", "--tables"});
    CHECK(evergrad({"report", (folder / "run").string(), "--tables", (folder / "tables").string()}).code == 0);
    return;
  }
  const Ended e = evergrad({"report", (folder / "run").string(), "--tables", (folder / "tables").string(), "--out",
                            (folder / "page.html").string(), "--title", "</script><b>&"});
  INFO(e.all());
  REQUIRE(e.code == 0);
  CHECK(contains(e.out, "page.html"));
  const std::string page = read_file(folder / "page.html");
  CHECK_FALSE(contains(page, "</script><b>"));
  CHECK(contains(page, "\\u003c/script>"));
  CHECK_FALSE(contains(page, "{{"));
  for (const char* table : {"summary.csv", "accuracy.csv", "tests.csv", "diagnosis.csv", "methods.csv"}) {
    const std::string text = read_file(folder / "tables" / table);
    CHECK_MESSAGE(std::count(text.begin(), text.end(), '\n') > 2, table);
  }
  CHECK(json_of(folder / "tables" / "report.json").at("groups").size() == 1);
  CHECK(evergrad({"report", (folder / "run").string()}).code == 0);
  CHECK(fs::exists(folder / "run" / "report.html"));
  check_refused(evergrad({"report", folder.path().string()}), 1, {"config.toml", "--out"});
  REQUIRE(evergrad(tiny_train(folder / "train")).code == 0);
  check_refused(evergrad({"report", (folder / "train").string()}), 2, {"evergrad continual"});
}

TEST_CASE("diagnose: tells what a checkpoint's network looks like, and changes nothing") {
  const TemporaryFolder folder;
  REQUIRE(evergrad(tiny_continual(folder / "run") + Args{"--depth", "2"}).code == 0);
  std::vector<std::pair<fs::path, std::string>> before;
  for (const auto& f : fs::recursive_directory_iterator(folder / "run"))
    if (f.is_regular_file()) before.push_back({f.path(), read_file(f.path())});
  const Ended e = evergrad({"diagnose", (folder / "run").string(), "--json", (folder / "d.json").string()});
  INFO(e.all());
  REQUIRE(e.code == 0);
  for (const char* word : {"after task 3 of 3", "token rank", "head similarity", "fc2", "Hessian", "pruning"})
    CHECK_MESSAGE(contains(e.out, word), word);
  const auto d = json_of(folder / "d.json");
  CHECK(d.at("blocks").at("weight.q.norm").size() == 2);
  CHECK(d.at("blocks").at("gradient.q.norm")[0].get<double>() > 0.0);
  CHECK_FALSE(d.at("blocks").contains("weight.q.update_ratio"));
  for (const char* key : {"robustness.noise", "robustness.pruning", "robustness.global_pruning", "robustness.units",
                          "robustness.quantisation"}) {
    CHECK(d.at("model").at(key).get<double>() >= 0.0);
    CHECK(d.at("model").at(key).get<double>() <= 1.0);
  }
  CHECK_FALSE(d.at("model").contains("robustness.heads"));  // there is one: without it nothing is left
  for (const char* part : {".v", ".ffn", ".last_block"})
    CHECK(d.at("model").contains(std::string("robustness.pruning") + part));
  for (const char* key : {"hessian.preconditioned_top", "hessian.trace", "sharpness.sam", "features.numerical_rank",
                          "robust_level.noise.v"})
    CHECK_MESSAGE(d.at("model").contains(key), key);
  CHECK(d.at("model").at("sharpness.sam").get<double>() > 0.0);  // uphill, over a distance that is short
  for (const char* kind : {"circuit.qk.effective_rank", "circuit.ov.effective_rank"})
    for (const auto& rank : d.at("blocks").at(kind)) CHECK((rank.get<double>() >= 1.0 && rank.get<double>() <= 16.0));
  CHECK(d.at("blocks").at("restore.v.drop").size() == 2);
  CHECK(d.at("probed_tasks") == nlohmann::json{1, 2, 3});
  for (const char* key : {"probe.accuracy", "probe.untrained_accuracy"})
    for (const auto& share : d.at("model").at(key)) CHECK((share.get<double>() >= 0.0 && share.get<double>() <= 1.0));
  for (const auto& [path, text] : before) CHECK_MESSAGE(read_file(path) == text, path);
  const Ended quick = evergrad({"diagnose", (folder / "run").string(), "--quick"});
  CHECK(quick.code == 0);
  CHECK_FALSE(contains(quick.out, "Hessian"));
  check_refused(evergrad({"diagnose", folder.path().string()}), 2, {"config.toml"});
}

TEST_CASE("diagnose: which modules hold a task is told from another checkpoint where the run remembers nothing") {
  const TemporaryFolder folder;
  const Args flags = {"--probe", "none", "--tasks", "1"};
  REQUIRE(evergrad(tiny_continual(folder / "run") + flags).code == 0);
  const std::string run = (folder / "run").string(), json = (folder / "d.json").string();
  const Ended without = evergrad({"diagnose", run, "--json", json});
  CHECK(without.code == 0);
  CHECK(contains(without.out, "--before CHECKPOINT"));
  CHECK_FALSE(json_of(json).at("blocks").contains("restore.v.drop"));
  REQUIRE(evergrad({"diagnose", run, "--before", run, "--json", json}).code == 0);
  for (const char* name : {"q", "k", "v", "out", "fc1", "fc2"})  // put back to what they are
    CHECK(json_of(json).at("blocks").at(std::string("restore.") + name + ".drop")[0] == 0.0);
  REQUIRE(evergrad(tiny_continual(folder / "wide") + flags + Args{"--dim", "24"}).code == 0);
  const Ended other = evergrad({"diagnose", run, "--before", (folder / "wide").string()});
  CHECK(other.code == 1);
  CHECK(contains(other.err, "both checkpoints must be of one run"));
}

TEST_CASE("diagnose: a task learned again with nothing held is the run itself, when that cleared its moments") {
  const TemporaryFolder folder;
  const Args flags = {"--depth", "2", "--optimizer-state", "clear", "--precision", "fp32", "--epochs", "3"};
  REQUIRE(evergrad(tiny_continual(folder / "run") + flags).code == 0);
  const std::string run = (folder / "run").string(), json = (folder / "d.json").string();
  const Ended e = evergrad({"diagnose", run, "--relearn", "--json", json});
  INFO(e.all());
  REQUIRE(e.code == 0);
  for (const char* word : {"with nothing held", "fc2 of all blocks", "block 1, all six"})
    CHECK_MESSAGE(contains(e.out, word), word);
  const auto d = json_of(json);
  CHECK(d.at("model").at("frozen.none.accuracy") == d.at("model").at("accuracy"));
  CHECK(d.at("blocks").at("frozen.block.drop").size() == 2);
  CHECK(d.at("model").contains("frozen.v.drop"));
  REQUIRE(evergrad(tiny_continual(folder / "blind") + flags + Args{"--probe", "none"}).code == 0);
  check_refused(evergrad({"diagnose", (folder / "blind").string(), "--relearn"}), 2, {"--relearn", "--before"});
}

TEST_CASE("diagnose: a checkpoint of evergrad train is looked at as well, moving average or not") {
  const TemporaryFolder folder;
  REQUIRE(evergrad(tiny_train(folder / "run") + Args{"--ema", "0.9"}).code == 0);
  const std::string run = (folder / "run").string(), json = (folder / "d.json").string();
  const Ended e = evergrad({"diagnose", run, "--json", json});
  INFO(e.all());
  REQUIRE(e.code == 0);
  for (const char* word : {"adamw, seed 1", "token rank", "linear classifier", "Hessian"})
    CHECK_MESSAGE(contains(e.out, word), word);
  const auto d = json_of(json);
  CHECK_FALSE(d.contains("task"));
  CHECK(d.at("model").at("probe.accuracy").get<double>() <= 1.0);
  CHECK(d.at("model").contains("robustness.noise.ffn"));
  CHECK(evergrad({"diagnose", run, "--quick"}).code == 0);
  CHECK(evergrad({"diagnose", run, "--before", run, "--quick"}).code == 0);
  check_refused(evergrad({"diagnose", run, "--before", run, "--relearn"}), 2, {"training on one data set"});
  check_refused(evergrad({"diagnose", run, "--images", "4", "--before", "/nowhere"}), 1, {"/nowhere"});
}

TEST_CASE("recipes: every one is explained, is read as a configuration, and gives way to flags") {
  const Ended list = evergrad({"continual", "--list-recipes"});
  REQUIRE(list.code == 0);
  for (const char* name : {"cifar100-50", "cifar100-50-small", "permuted-cifar100-small", "procedural-small"})
    CHECK(contains(list.out, std::string(name) + "\n"));
  const TemporaryFolder folder;
  const Ended e = evergrad({"continual",
                            "--recipe",
                            "procedural-small",
                            "--tasks",
                            "2",
                            "--epochs",
                            "1",
                            "--train-limit",
                            "20",
                            "--test-limit",
                            "10",
                            "--dim",
                            "16",
                            "--depth",
                            "1",
                            "--heads",
                            "1",
                            "--seeds",
                            "1",
                            "--methods",
                            "adamw",
                            "--out",
                            (folder / "run").string()});
  INFO(e.all());
  REQUIRE(e.code == 0);
  const std::string config = read_file(folder / "run" / "config.toml");
  CHECK(contains(config, "protocol = \"input-permutation\""));
  CHECK(contains(config, "dim = 16"));
  CHECK(contains(config, "patch = 8"));
  check_refused(evergrad({"continual", "--recipe", "nothing"}), 2, {"no recipe 'nothing'", "cifar100-50-small"});
}
