// tests/engine/test_kernel_choices.cpp - which implementation is taken, what is measured, kept and refused. The trials and the
// clock are made up: no device takes part.
#include "engine/kernel_choices.h"

#include "engine/file.h"
#include "engine/kernel_cache.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;

namespace {

/// Implementations whose results are given; every run is counted.
struct FakeTrial final : KernelTrial {
  using Results = std::vector<std::vector<std::vector<float>>>;
  FakeTrial(const Results& r, int* n) : given(r), runs(n) {}
  void prepare() override {}
  void run(std::size_t i) override { last = i, ++*runs; }
  std::vector<std::vector<float>> results() override {
    if (given[last].empty()) fail(Kind::device, "the library refused");
    return given[last];
  }
  Stream stream() const override { return {}; }
  const Results& given;
  int* runs;
  std::size_t last = 0;
};

/// A device with two kernels of its own and two of a library.
struct Rig {
  KernelChoices choices;
  std::vector<KernelImplementation> all{{"ours"}, {"other"}, {"lib-0", true}, {"lib-1", true}};
  FakeTrial::Results results{4, {{1.0f, 2.0f}}};
  std::map<std::string, double> clock{{"ours", 2.0}, {"other", 3.0}, {"lib-0", 1.0}, {"lib-1", 1.5}};
  int runs = 0, trials = 0;
  std::vector<std::string> warnings, written;

  explicit Rig(const std::string& identity = "card A, driver 1") {
    choices.describe({"ours", "other", "lib-0", "lib-1"}, identity,
                     [this](const std::string&, const std::string& name, Stream, const std::function<void()>& work) {
                       work();
                       return clock.at(name);
                     });
  }
  KernelChoices::Start with(KernelMode mode, const std::filesystem::path& cache = {}) {
    KernelChoices::Start s;
    s.mode = mode, s.cache = cache;
    s.chosen = [this](const KernelChoice& c) { written.push_back(cat(c.call, ":", c.chosen, ":", c.origin)); };
    s.warn = [this](const std::string& text) { warnings.push_back(text); };
    return s;
  }
  std::string choose(const std::string& call, bool recording = false) {
    return all[choices.choose(call, all, recording,
                              [this] {
                                ++trials;
                                return std::make_unique<FakeTrial>(results, &runs);
                              })]
        .name;
  }
};

}  // namespace

TEST_CASE("kernel choices: hand asks nobody, library takes the library's first, auto what the clock favours") {
  Rig rig;
  CHECK_FALSE(rig.choices.active());
  rig.choices.start(rig.with(KernelMode::library));
  CHECK(rig.choices.active());
  CHECK(rig.choose("a") == "lib-0");
  CHECK(rig.trials == 0);
  rig.all.resize(2);
  CHECK(rig.choose("b") == "ours");

  rig.choices.start(rig.with(KernelMode::hand));
  CHECK_FALSE(rig.choices.active());
  CHECK(rig.choose("a") == "ours");

  Rig measured;
  measured.choices.start(measured.with(KernelMode::automatic));
  CHECK(measured.choose("a") == "lib-0");
  CHECK(measured.choose("a") == "lib-0");
  CHECK(measured.trials == 1);  // once for each call
  measured.clock["other"] = 0.5;
  CHECK(measured.choose("b") == "other");
  measured.clock = {{"ours", 1.0}, {"other", 0.99}, {"lib-0", 1.0}, {"lib-1", 1.0}};
  CHECK(measured.choose("c") == "ours");  // one part in a hundred is noise
  CHECK(measured.written == std::vector<std::string>{"a:lib-0:measured", "b:other:measured", "c:ours:measured"});
  const KernelChoice first = measured.choices.made().front();
  REQUIRE(first.times.size() == 4);
  CHECK(first.times[0].milliseconds == 2.0);
  CHECK(first.times[2].milliseconds == 1.0);
}

TEST_CASE("kernel choices: whoever computes something else, or fails, is out however fast, and the reason is said") {
  Rig rig;
  rig.choices.start(rig.with(KernelMode::automatic));
  rig.results[2] = {{1.0f, 2.1f}};  // lib-0: 0.1 / sqrt(5) = 4.5% away, more than 1/64
  rig.results[3] = {};              // lib-1 throws
  CHECK(rig.choose("a") == "ours");
  REQUIRE(rig.warnings.size() == 2);
  CHECK(rig.warnings[0].find("'lib-0' is not used for a: its result is 0.0447") != std::string::npos);
  CHECK(rig.warnings[1].find("'lib-1' is not used for a: the library refused") != std::string::npos);

  rig.results[2] = {{1.0f, std::numeric_limits<float>::quiet_NaN()}};
  CHECK(rig.choose("b") == "ours");
  // Rounding is no other operation: 2^-8 of a number.
  rig.results[2] = {{1.0f + 1.0f / 256, 2.0f}};
  CHECK(rig.choose("c") == "lib-0");
  // Ours overflowed: nothing can be compared, so ours stays and nothing is timed.
  rig.results[0] = {{std::numeric_limits<float>::infinity(), 2.0f}};
  CHECK(rig.choose("d") == "ours");
  CHECK(rig.written.back() == "d:ours:rule");
}

TEST_CASE("kernel choices: two results for one call are not repeatable, and out") {
  struct Drifting final : KernelTrial {
    void prepare() override {}
    void run(std::size_t i) override { last = i, drift += 1e-6f; }
    std::vector<std::vector<float>> results() override { return {{1.0f + (last == 1 ? drift : 0.0f)}}; }
    Stream stream() const override { return {}; }
    std::size_t last = 0;
    float drift = 0.0f;
  };
  Rig rig;
  rig.clock["other"] = 0.1;
  rig.all.resize(2);
  rig.choices.start(rig.with(KernelMode::automatic));
  CHECK(rig.choices.choose("a", rig.all, false, [] { return std::make_unique<Drifting>(); }) == 0);
  REQUIRE(rig.warnings.size() == 1);
  CHECK(rig.warnings[0].find("two results for the same call") != std::string::npos);
}

TEST_CASE("kernel choices: while a step is recorded nothing is measured, and what was chosen then stays") {
  Rig rig;
  rig.choices.start(rig.with(KernelMode::automatic));
  CHECK(rig.choose("a", true) == "ours");
  CHECK(rig.choose("a", false) == "ours");
  CHECK(rig.trials == 0);
}

TEST_CASE("kernel choices: no memory for a trial leaves ours, with a message, and is not remembered for other runs") {
  const TemporaryFolder folder;
  Rig rig;
  rig.choices.start(rig.with(KernelMode::automatic, folder.path()));
  const auto full = []() -> std::unique_ptr<KernelTrial> { fail(Kind::memory, "no room for 300 MiB"); };
  CHECK(rig.choices.choose("a", rig.all, false, full) == 0);
  REQUIRE(rig.warnings.size() == 1);
  CHECK(rig.warnings[0].find("no room for 300 MiB") != std::string::npos);
  CHECK(read_kernel_cache(folder.path(), "card A, driver 1").chosen.empty());
}

TEST_CASE("kernel choices: pinned ones win over everything, and an unknown one is refused by name") {
  Rig rig;
  KernelChoices::Start s = rig.with(KernelMode::automatic);
  s.pinned = {{"a", "other", "", {}}};
  rig.choices.start(s);
  CHECK(rig.choose("a") == "other");
  CHECK(rig.choose("b") == "lib-0");
  CHECK(rig.trials == 1);
  CHECK(rig.written.front() == "a:other:this run");

  s.pinned = {{"a", "lib-7", "", {}}};
  const std::string text = error_text(Kind::usage, [&] { rig.choices.start(s); });
  CHECK(text.find("'lib-7' for a") != std::string::npos);
  CHECK(text.find("ours, other, lib-0, lib-1") != std::string::npos);

  // In the build, but not possible for this call.
  s.pinned = {{"a", "lib-1", "", {}}};
  rig.choices.start(s);
  rig.all.resize(2);
  CHECK(error_text(Kind::usage, [&] { rig.choose("a"); }).find("possible: ours, other") != std::string::npos);
  rig.all.resize(1);
  CHECK(error_text(Kind::usage, [&] { rig.choose("a"); }).find("possible: ours") != std::string::npos);
}

TEST_CASE(
    "kernel choices: watched ones go when a gradient was not finite, whatever was chosen, and come back for another "
    "run") {
  Rig rig;
  rig.all[2].watched = true;  // lib-0, what the rule and the clock take
  const auto restart = [&](KernelMode mode) {
    rig.written.clear();
    rig.choices.start(rig.with(mode));
  };
  restart(KernelMode::library);
  CHECK(rig.choose("a") == "lib-0");
  CHECK(rig.choices.trust_watched(true).empty());  // nothing new
  const std::vector<KernelChoice> changed = rig.choices.trust_watched(false);
  REQUIRE(changed.size() == 1);
  CHECK(changed[0].call == "a");
  CHECK(changed[0].chosen == "lib-0");
  CHECK(changed[0].instead == "ours");
  CHECK(rig.choices.trust_watched(false).empty());  // said once
  CHECK(rig.choose("a") == "ours");
  CHECK(rig.choose("b") == "lib-1");  // a library's, but not watched
  // Another trainer of the same run whose gradients were finite.
  rig.choices.trust_watched(true);
  CHECK(rig.choose("a") == "lib-0");
  CHECK(rig.choose("b") == "lib-1");  // what was chosen stays
  // The record says what was chosen first, and the run itself knows when a gradient was not finite.
  CHECK(rig.written == std::vector<std::string>{"a:lib-0:rule", "b:lib-1:rule"});

  restart(KernelMode::automatic);
  rig.choices.trust_watched(false);
  CHECK(rig.choose("a") == "lib-1");  // the second fastest: the watched one takes no part
  CHECK(rig.choices.made().front().times[2].refused.find("not finite") != std::string::npos);

  KernelChoices::Start s = rig.with(KernelMode::library);
  s.pinned = {{"a", "lib-0", "", {}}};
  rig.choices.start(s);
  rig.choices.trust_watched(false);  // a resumed run
  CHECK(rig.choose("a") == "ours");
  rig.choices.start(s);
  CHECK(rig.choose("a") == "lib-0");
}

TEST_CASE("kernel choices: auto needs a clock, and the mode is one of three") {
  KernelChoices blind;
  blind.describe({"ours"}, "card", {});
  KernelChoices::Start s;
  s.mode = KernelMode::automatic;
  CHECK(error_text(Kind::usage, [&] { blind.start(s); }).find("no clock") != std::string::npos);
  CHECK(error_text(Kind::usage, [] { parse_kernel_mode("fast"); }).find("hand, library, auto") != std::string::npos);
  for (const KernelMode m : {KernelMode::hand, KernelMode::library, KernelMode::automatic})
    CHECK(parse_kernel_mode(to_string(m)) == m);
}

TEST_CASE("kernel cache: a second run measures nothing; another card, and what is no longer there, are measured") {
  const TemporaryFolder folder;
  Rig first;
  first.choices.start(first.with(KernelMode::automatic, folder / "new" / "folder"));
  CHECK(first.choose("a") == "lib-0");
  CHECK(first.choose("b") == "lib-0");

  Rig second;
  second.clock["ours"] = 0.1;  // not asked
  second.choices.start(second.with(KernelMode::automatic, folder / "new" / "folder"));
  CHECK(second.choose("b") == "lib-0");
  CHECK(second.written == std::vector<std::string>{"b:lib-0:cache"});
  CHECK(second.trials == 0);

  Rig other("card B, driver 1");
  other.clock["ours"] = 0.1;
  other.choices.start(other.with(KernelMode::automatic, folder / "new" / "folder"));
  CHECK(other.choose("b") == "ours");

  Rig without;  // a build without the library
  without.all.resize(2);
  without.choices.start(without.with(KernelMode::automatic, folder / "new" / "folder"));
  CHECK(without.choose("a") == "ours");
  REQUIRE(without.warnings.size() == 1);
  CHECK(without.warnings[0].find("'lib-0', once measured") != std::string::npos);
}

TEST_CASE("kernel cache: a damaged file is named, and measured anew") {
  const TemporaryFolder folder;
  const std::string card = "card A, driver 1";
  const auto file = kernel_cache_file(folder.path(), card);
  {
    Rig rig;
    rig.choices.start(rig.with(KernelMode::automatic, folder.path()));
    CHECK(rig.choose("a") == "lib-0");
  }
  const std::string good = read_file(file);
  CHECK(read_kernel_cache(folder.path(), card).chosen.size() == 1);
  // One letter changed, cut anywhere, emptied, another device's file under this name, no text at all.
  std::vector<std::string> bad{"", "\n", std::string(300, '\xff'), good.substr(0, good.size() - 1), good + good};
  for (std::size_t cut = 1; cut < good.size(); cut += 7) bad.push_back(good.substr(0, cut));
  for (std::size_t i = 0; i < good.size(); i += 5) {
    bad.push_back(good);
    bad.back()[i] = char(bad.back()[i] ^ 1);
  }
  for (const std::string& text : bad) {
    write_file(file, text);
    CAPTURE(text);
    const CachedChoices read = read_kernel_cache(folder.path(), card);
    CHECK(read.chosen.empty());
    CHECK(read.damage.find(file.string()) != std::string::npos);
  }
  write_file(file, bad.back());
  int trials = 0;
  {
    Rig rig;
    rig.choices.start(rig.with(KernelMode::automatic, folder.path()));
    CHECK(rig.choose("a") == "lib-0");
    REQUIRE(rig.warnings.size() == 1);
    CHECK(rig.warnings[0].find("taken anew") != std::string::npos);
    trials = rig.trials;
  }
  CHECK(trials == 1);
  CHECK(read_file(file) == good);
}

TEST_CASE("kernel cache: a folder that cannot be written is said once, and the run goes on") {
  Rig rig;
  rig.choices.start(rig.with(KernelMode::automatic, "/proc/evergrad"));
  CHECK(rig.choose("a") == "lib-0");
  CHECK(rig.choose("b") == "lib-0");
  REQUIRE(rig.warnings.size() == 1);
  CHECK(rig.warnings[0].find("/proc/evergrad") != std::string::npos);
}
