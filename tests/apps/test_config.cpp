// tests/apps/test_config.cpp - resolved configurations: TOML both ways, and what a resume with other flags is told.
#include <doctest/doctest.h>

#include <cmath>

#include "apps/run/config.h"
#include "engine/error.h"
#include "engine/file.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;

namespace {
Config sample() {
  Config c;
  c.set("stream", "cifar100");
  c.set("train-limit", 0);
  c.set("lr", 1e-3);
  c.set("seeds", std::vector<std::int64_t>{1, 2, 3});
  c.set("methods", std::vector<std::string>{"adamw", "arrow:window=8"});
  c.set("resume", true);
  c.set("quote", "a \"b\" \\ c\n\t\x01 \xc3\xa9 # = [x]");
  c.set("augment.crop", 4);
  c.set("augment.flip", false);
  return c;
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
}  // namespace

TEST_CASE("config: what is written as TOML is read back equal and in the same order") {
  const TemporaryFolder folder;
  const Config c = sample();
  c.write(folder / "config.toml");
  const Config back = Config::read(folder / "config.toml");
  CHECK_FALSE(first_difference(c, back));
  REQUIRE(back.entries().size() == c.entries().size());
  for (std::size_t i = 0; i < c.entries().size(); ++i) CHECK(back.entries()[i].first == c.entries()[i].first);
  CHECK(back.toml() == c.toml());
  CHECK(back.text("quote") == c.text("quote"));
}

TEST_CASE("config: numbers keep every bit and their kind") {
  Config c;
  int i = 0;
  for (const double v : {0.1, 1.0, -0.0, 1e-300, 5e-324, 1e22, 123456789.0, 1.0 / 3, double(INFINITY)})
    c.set(cat("k", i++), v);
  c.set("nan", double(NAN));
  c.set("whole", std::int64_t(9007199254740993));
  const Config back = Config::from_toml(c.toml(), "x");
  for (int k = 0; k < i; ++k) CHECK(back.number(cat("k", k)) == c.number(cat("k", k)));
  CHECK(std::isnan(back.number("nan")));
  CHECK(back.whole("whole") == 9007199254740993);
  CHECK(contains(c.toml(), "k1 = 1.0\n"));
}

TEST_CASE("config: setting a key again replaces the value in place") {
  Config c = sample();
  c.set("lr", 0.5);
  CHECK(c.entries()[2].first == "lr");
  CHECK(c.number("lr") == 0.5);
  CHECK(c.entries().size() == sample().entries().size());
}

TEST_CASE("config: values of the wrong kind, absent keys and bad names are usage errors that name the key") {
  const Config c = sample();
  CHECK(c.number("train-limit") == 0);  // a whole number is a number
  CHECK(contains(error_text(Kind::usage, [&] { c.whole("lr"); }), "lr = 0.001"));
  CHECK(contains(error_text(Kind::usage, [&] { c.text("seeds"); }), "seeds = [1, 2, 3]"));
  CHECK(contains(error_text(Kind::usage, [&] { c.flag("none"); }), "none"));
  for (const char* bad : {"", "a b", "a=b", ".a", "a.", "a..b", "a\n", "\xc3\xa9"}) {
    Config d;
    error_text(Kind::usage, [&] { d.set(bad, 1); });
  }
}

TEST_CASE("config: the first difference names the key and both values") {
  const Config a = sample();
  Config b = sample();
  CHECK_FALSE(first_difference(a, b));
  b.set("lr", 2e-3);
  auto d = first_difference(a, b);
  REQUIRE(d);
  CHECK(d->key == "lr");
  CHECK(d->before == "0.001");
  CHECK(d->now == "0.002");
  CHECK_FALSE(first_difference(a, b, {"lr"}));
  b = sample();
  b.set("methods", std::vector<std::string>{"adamw"});
  CHECK(first_difference(a, b)->key == "methods");
  b = sample();
  b.set("more", 1);
  d = first_difference(a, b);
  CHECK(d->key == "more");
  CHECK_FALSE(d->before);
  CHECK(first_difference(b, a)->now == std::nullopt);
  b = sample();
  b.set("train-limit", 0.0);
  CHECK_FALSE(first_difference(a, b));  // 0 and 0.0 are the same number
  b.set("train-limit", "0");
  CHECK(first_difference(a, b)->key == "train-limit");
}

TEST_CASE("config: resuming with another configuration is refused with key, values, folder and remedy") {
  const Config a = sample();
  Config b = sample();
  check_same_config(a, b, "runs/x");
  b.set("train-limit", 100);
  const std::string text = error_text(Kind::usage, [&] { check_same_config(a, b, "runs/x"); });
  for (const char* part : {"train-limit", "was 0", "now 100", "runs/x", "--out"}) CHECK(contains(text, part));
  check_same_config(a, b, "runs/x", {"train-limit"});
}

TEST_CASE("config: broken TOML is a format error with file and line, never a crash") {
  for (const char* bad : {"a = ", "a", "= 1", "a = 1\na = 2", "a = [1, ", "a = \"x", "[t\na=1", "a = 1 b = 2",
                          "a = 1979-05-27", "a = [[1]]", "a = [{b = 1}]", "\xff = 1", "\"a b\" = 1"}) {
    INFO(bad);
    CHECK_THROWS_AS(Config::from_toml(bad, "bad.toml"), Error);
  }
  const std::string text = error_text(Kind::format, [] { Config::from_toml("a = 1\nb = \n", "bad.toml"); });
  CHECK(contains(text, "bad.toml, line 2"));
  const std::string deep = "a = " + std::string(100000, '[');
  CHECK_THROWS_AS(Config::from_toml(deep, "bad.toml"), Error);
}

TEST_CASE("config: tables of a hand-written file become dotted keys") {
  const Config c = Config::from_toml("lr = 1\n[augment]\nflip = true\ncrop = 4\n", "x");
  CHECK(c.flag("augment.flip"));
  CHECK(c.whole("augment.crop") == 4);
  CHECK(c.entries()[1].first == "augment.flip");
}
