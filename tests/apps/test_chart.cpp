// tests/apps/test_chart.cpp - charts, tables and the progress line.
#include <doctest/doctest.h>

#include <cmath>
#include <sstream>

#include "apps/report/chart.h"
#include "apps/run/progress.h"
#include "apps/run/table.h"
#include "engine/error.h"
#include "engine/file.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;
using namespace std::chrono_literals;

namespace {
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
std::uint32_t big_endian(const std::string& text, std::size_t at) {
  std::uint32_t v = 0;
  for (std::size_t i = 0; i < 4; ++i) v = v << 8 | static_cast<unsigned char>(text[at + i]);
  return v;
}
}  // namespace

TEST_CASE("chart: a PNG of the stated size, the same bytes for the same data, others for other data") {
  const TemporaryFolder folder;
  const std::vector<ChartSeries> series = {{"adamw", {1, 2, 3}, {0.5, NAN, 0.2}, {0.4, 0.3, 0.1}, {0.6, 0.5, INFINITY}},
                                           {"arrow", {1, 2, 3}, {0.5, 0.6, 0.7}, {}, {}}};
  if (!why_no_charts().empty()) {
    CHECK(
        contains(error_text(Kind::usage, [&] { write_line_chart(folder / "c.png", "t", "x", "y", series); }), "cairo"));
    MESSAGE("SKIPPED: this build has no cairo");
    return;
  }
  write_line_chart(folder / "c.png", "t", "x", "y", series, {.percent = true, .whole_x = true});
  const std::string png = read_file(folder / "c.png");
  CHECK(png.substr(0, 8) == "\x89PNG\r\n\x1a\n");
  CHECK(big_endian(png, 16) == 1760);
  CHECK(big_endian(png, 20) == 1000);
  CHECK(contains(png, "IEND"));
  write_line_chart(folder / "d.png", "t", "x", "y", series, {.percent = true, .whole_x = true});
  CHECK(read_file(folder / "d.png") == png);
  auto other = series;
  other[1].ys[1] = 0.65;
  write_line_chart(folder / "d.png", "t", "x", "y", other, {.percent = true, .whole_x = true});
  CHECK(read_file(folder / "d.png") != png);
}

TEST_CASE("chart: no points, one point, equal, huge, tiny and non-finite values are drawn without harm") {
  if (!why_no_charts().empty()) return;
  const TemporaryFolder folder;
  const std::vector<std::vector<double>> lists = {{},
                                                  {1},
                                                  {2, 2, 2},
                                                  {0, 0},
                                                  {1e300, -1e300},
                                                  {1e-300, 2e-300},
                                                  {NAN, NAN},
                                                  {INFINITY, 1},
                                                  {-5, -4},
                                                  {1.7e308, -1.7e308},
                                                  {1, 1 + 1e-16}};
  for (const auto& ys : lists)
    for (const auto& xs : lists) {
      if (xs.size() != ys.size()) continue;
      write_line_chart(folder / "c.png", "", "", "", {{"s", xs, ys, ys, ys}});
      CHECK(read_file(folder / "c.png").size() > 1000);
    }
  const std::vector<ChartSeries> many(40, ChartSeries{std::string(300, 'n'), {1, 2}, {1, 2}, {}, {}});
  write_line_chart(folder / "c.png", std::string(500, 't'), "x", "y", many);
}

TEST_CASE("chart: lists of different length, no series and an unwritable path are errors") {
  if (!why_no_charts().empty()) return;
  const TemporaryFolder folder;
  error_text(Kind::usage, [&] { write_line_chart(folder / "c.png", "", "", "", {}); });
  const std::string text = error_text(Kind::usage, [&] {
    write_line_chart(folder / "c.png", "", "", "", {{"arrow", {1, 2}, {1}, {}, {}}});
  });
  CHECK(contains(text, "arrow"));
  error_text(Kind::usage, [&] { write_line_chart(folder / "c.png", "", "", "", {{"a", {1}, {1}, {1}, {}}}); });
  error_text(Kind::io, [&] { write_line_chart(folder / "no/c.png", "", "", "", {{"a", {1}, {1}, {}, {}}}); });
  const MountedFolder disk("16k");
  if (!disk) return;
  write_file(disk.path() / "fill", std::string(12000, 'x'));
  CHECK(contains(
      error_text(Kind::io,
                 [&] {
                   write_line_chart(disk.path() / "c.png", "a title", "x", "y", {{"a", {1, 2}, {1, 2}, {}, {}}});
                 }),
      "No space left"));
  CHECK_FALSE(std::filesystem::exists(disk.path() / "c.png"));
}

TEST_CASE("table: columns are aligned, numbers to the right, also beside characters of several bytes") {
  TextTable t({"method", "AAT", "images/s"});
  t.add_row({"adamw", "0.61 \xc2\xb1 0.02", "1234"});
  t.add_row({"arrow", "0.7 \xc2\xb1 0.1", "99"});
  t.add_row({"sgd", "-"});
  CHECK(t.text() ==
        "method          AAT  images/s\n"
        "------  -----------  --------\n"
        "adamw   0.61 \xc2\xb1 0.02      1234\n"
        "arrow     0.7 \xc2\xb1 0.1        99\n"
        "sgd               -\n");
  CHECK(contains(t.markdown(), "| adamw | 0.61 \xc2\xb1 0.02 | 1234 |\n"));
  CHECK(contains(t.markdown(), "|---|---|---|\n"));
  CHECK_THROWS_AS(t.add_row({"1", "2", "3", "4"}), Error);
  CHECK(fixed(0.125, 2) == "0.12");
  CHECK(fixed(NAN, 2) == "nan");
}

TEST_CASE("progress: the line says where the run is and how long it will take") {
  const ProgressState s{.what = "arrow, seed 2",
                        .task = 3,
                        .tasks = 20,
                        .epoch = 2,
                        .epochs = 10,
                        .loss = 1.2345,
                        .accuracy = 0.456,
                        .images_per_second = 1234.4,
                        .done = 0.1};
  CHECK(progress_line(s, 192) ==
        "arrow, seed 2 | task 3/20 | epoch 2/10 | loss 1.234 | acc 45.6% | 1234 images/s | 3 min 12 s left");
  CHECK(progress_line({.what = "x", .loss = NAN}, -1) == "x | loss nan");
  CHECK(duration_text(0.4) == "0 s");
  CHECK(duration_text(59.6) == "1 min 00 s");
  CHECK(duration_text(7500) == "2 h 05 min");
  CHECK(duration_text(INFINITY) == "?");
}

TEST_CASE("progress: without a terminal plain lines appear at intervals and when the task changes") {
  std::ostringstream out;
  Progress p(out, false, 10s);
  const Progress::Clock::time_point t0 = Progress::Clock::now();
  ProgressState s{.what = "a", .task = 1, .tasks = 2, .done = 0.5};
  p.update(s, t0);
  for (int i = 1; i < 10; ++i) p.update(s, t0 + i * 1s);
  CHECK(out.str() == "a | task 1/2\n");
  s.done = 0.75;
  p.update(s, t0 + 10s);  // a quarter in 10 s, a quarter is left; the half done before the start does not count
  CHECK(out.str() == "a | task 1/2\na | task 1/2 | 10 s left\n");
  s.task = 2;
  p.update(s, t0 + 11s);
  CHECK(contains(out.str(), "task 2/2"));
  p.note("finished");
  CHECK(contains(out.str(), "\nfinished\n"));
  CHECK_FALSE(contains(out.str(), "\x1b"));
}

TEST_CASE("progress: on a terminal one line is rewritten and cleared for notes") {
  std::ostringstream out;
  {
    Progress p(out, true);
    const Progress::Clock::time_point t0 = Progress::Clock::now();
    p.update({.what = "a"}, t0);
    p.update({.what = "a", .loss = 2.0}, t0 + 50ms);  // too soon
    p.update({.what = "a", .loss = 3.0}, t0 + 150ms);
    p.update({.what = "c"}, t0 + 160ms);  // another run shows at once
    p.note("done");
    p.update({.what = std::string(1000, 'x')}, t0 + 300ms);
  }
  const std::string text = out.str();
  CHECK(contains(text, "\ra\x1b[K\ra | loss 3\x1b[K\rc\x1b[K\r\x1b[Kdone\n\rxxx"));
  CHECK_FALSE(contains(text, std::string(500, 'x')));  // cut at the width of the terminal
  CHECK(text.substr(text.size() - 4) == "\r\x1b[K");
}
