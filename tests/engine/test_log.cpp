// tests/engine/test_log.cpp - JSON lines.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/log.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;
using nlohmann::json;

TEST_CASE("log line: every line is one JSON object with the values given") {
  const std::vector<double> list = {0.25, -1.0, NAN};
  const std::string text = LogLine("task")
                               .add("task", 3)
                               .add("loss", 0.1)
                               .add("name", "a\"b\\c\n\x01 \xc3\xa9 \xff")
                               .add("big", std::uint64_t(1) << 63)
                               .add("yes", true)
                               .add("nan", NAN)
                               .add("inf", -INFINITY)
                               .add("list", list)
                               .raw("inner", "{\"a\":1}")
                               .text();
  CHECK(text.find('\n') == std::string::npos);
  const json j = json::parse(text);
  CHECK(j["event"] == "task");
  CHECK(j["task"] == 3);
  CHECK(j["loss"].get<double>() == 0.1);
  CHECK(j["name"] == "a\"b\\c\n\x01 \xc3\xa9 \xef\xbf\xbd");
  CHECK(j["big"].get<std::uint64_t>() == std::uint64_t(1) << 63);
  CHECK(j["yes"] == true);
  CHECK(j["nan"] == "nan");
  CHECK(j["inf"] == "-inf");
  CHECK(j["list"].dump() == "[0.25,-1,\"nan\"]");
  CHECK(j["inner"]["a"] == 1);
}

TEST_CASE("json_quote: all two-byte strings become valid JSON") {
  for (int a = 0; a < 256; ++a)
    for (int b = 0; b < 256; ++b) {
      const std::string quoted = json_quote(std::string{char(a), char(b)});
      if (!json::accept(quoted)) FAIL_CHECK("not JSON for bytes ", a, " ", b);
    }
}

TEST_CASE("json_number: reads back as the same double") {
  for (const double v : {0.0, -0.0, 0.1, 1.0 / 3, 1e300, 5e-324, 123456789.123, 1e15, 1e16})
    CHECK(json::parse(json_number(v)).get<double>() == v);
}

TEST_CASE("log: lines are visible at once and opening again continues") {
  const TemporaryFolder folder;
  {
    JsonLog log(folder / "m.jsonl");
    log.write(LogLine("a"));
    CHECK(read_file(folder / "m.jsonl") == "{\"event\":\"a\"}\n");
    CHECK(log.bytes() == 14);
  }
  JsonLog log(folder / "m.jsonl");
  CHECK(log.removed_bytes() == 0);
  log.write(LogLine("b"));
  log.sync();
  CHECK(read_file(folder / "m.jsonl") == "{\"event\":\"a\"}\n{\"event\":\"b\"}\n");
}

TEST_CASE("log: a torn last line is cut, wherever it was torn") {
  const TemporaryFolder folder;
  const std::string whole = "{\"event\":\"a\"}\n{\"event\":\"" + std::string(9000, 'b') + "\"}\n";
  for (const std::size_t cut : {0u, 5u, 13u, 14u, 15u, 4096u, 8192u, 9000u, unsigned(whole.size() - 1)}) {
    std::ofstream(folder / "m.jsonl", std::ios::trunc) << whole.substr(0, cut);
    JsonLog log(folder / "m.jsonl");
    const std::string kept = cut < 14 ? "" : whole.substr(0, 14);
    CHECK(log.bytes() == kept.size());
    CHECK(log.removed_bytes() == cut - kept.size());
    log.write(LogLine("z"));
    CHECK(read_file(folder / "m.jsonl") == kept + "{\"event\":\"z\"}\n");
  }
}

TEST_CASE("log: a resumed run repeats no line after the checkpoint") {
  const TemporaryFolder folder;
  std::uint64_t at_checkpoint = 0;
  {
    JsonLog log(folder / "m.jsonl");
    log.write(LogLine("a"));
    log.sync();
    at_checkpoint = log.bytes();
    log.write(LogLine("b"));
    log.write(LogLine("c"));
  }
  JsonLog log(folder / "m.jsonl", at_checkpoint);
  log.write(LogLine("b"));
  CHECK(read_file(folder / "m.jsonl") == "{\"event\":\"a\"}\n{\"event\":\"b\"}\n");
  // A recorded length beyond the file, or inside a line, never leaves a broken line.
  CHECK(JsonLog(folder / "m.jsonl", 1000).bytes() == 28);
  CHECK(JsonLog(folder / "m.jsonl", 20).bytes() == 14);
}

TEST_CASE("log: a full disk throws and leaves whole lines only") {
  const MountedFolder disk("16k");
  if (!disk) return;
  JsonLog log(disk.path() / "m.jsonl");
  const LogLine line = LogLine("x").add("text", std::string(1000, 'y'));
  std::string text;
  for (int i = 0; i < 100 && text.empty(); ++i) {
    try {
      log.write(line);
    } catch (const Error& e) { text = e.what(); }
  }
  CHECK(text.find("No space left on device") != std::string::npos);
  const std::string content = read_file(disk.path() / "m.jsonl");
  CHECK(content.size() == log.bytes());
  CHECK(content.size() % (line.text().size() + 1) == 0);
  CHECK(!content.empty());
}
