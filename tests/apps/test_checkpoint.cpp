// tests/apps/test_checkpoint.cpp - checkpoints: whole or absent, bitwise, with the previous one to fall back on.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "apps/run/checkpoint.h"
#include "engine/error.h"
#include "engine/file.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<StateTensor> model(double fill, std::int64_t rows = 5) {
  const std::vector<double> w(static_cast<std::size_t>(rows * 3), fill), b = {fill, -fill};
  return {{{"head.weight", Tensor::from(std::span<const double>(w), {rows, 3}, DType::f32, kCpu)}, {}},
          {{"head.bias", Tensor::from(std::span<const double>(b), {2}, DType::bf16, kCpu)}, {}},
          {{"count", Tensor::from(std::span<const double>(b).first(1), {}, DType::f64, kReference)}, {}}};
}
double value_of(const Checkpoint& c) {
  const auto into = model(0);
  c.restore(into);
  const double v = into[0].tensor.to_host()[14];
  CHECK(into[1].tensor.to_host()[1] == -v);
  CHECK(into[2].tensor.to_host()[0] == v);
  return v;
}
std::vector<std::string> names(const fs::path& folder) {
  std::vector<std::string> list;
  for (const auto& e : fs::directory_iterator(folder)) list.push_back(e.path().filename().string());
  std::sort(list.begin(), list.end());
  return list;
}
void flip_bit(const fs::path& path, std::size_t at) {
  std::string text = read_file(path);
  text[at] = char(text[at] ^ 4);
  write_file(path, text);
}
}  // namespace

TEST_CASE("checkpoint: tensors and state come back bitwise, on any device") {
  const TemporaryFolder folder;
  Checkpoints points(folder / "checkpoints");
  std::vector<std::string> notes;
  CHECK_FALSE(points.load_latest(&notes));
  CHECK(notes.empty());
  const json state = {
      {"task", 3}, {"acc", {0.1, 1.0 / 3}}, {"big", std::uint64_t(1) << 63}, {"bad", NAN}, {"name", "\xc3\xa9"}};
  points.save(70, model(1.5), state);
  const auto back = points.load_latest(&notes);
  REQUIRE(back);
  CHECK(notes.empty());
  CHECK(back->step == 70);
  CHECK(back->state["acc"][1].get<double>() == 1.0 / 3);
  CHECK(back->state["big"].get<std::uint64_t>() == std::uint64_t(1) << 63);
  CHECK(back->state["bad"].is_null());
  CHECK(value_of(*back) == 1.5);
  CHECK(names(points.folder()) == std::vector<std::string>{"step-70.json", "step-70.safetensors"});
}

TEST_CASE("checkpoint: the last two are kept, by step and not by name") {
  const TemporaryFolder folder;
  Checkpoints points(folder.path());
  for (const int step : {8, 9, 10, 11}) points.save(step, model(step), {{"s", step}});
  CHECK(names(folder.path()) ==
        std::vector<std::string>{"step-10.json", "step-10.safetensors", "step-11.json", "step-11.safetensors"});
  CHECK(value_of(*points.load_latest(nullptr)) == 11);
}

TEST_CASE("checkpoint: any damage to the newest falls back to the previous one and says so") {
  const TemporaryFolder folder;
  Checkpoints points(folder.path());
  points.save(1, model(1), {{"s", 1}});
  points.save(2, model(2), {{"s", 2}});
  const fs::path tensors = folder / "step-2.safetensors", header = folder / "step-2.json";
  const std::string good_tensors = read_file(tensors), good_header = read_file(header);
  const auto falls_back = [&](const char* what) {
    INFO(what);
    std::vector<std::string> notes;
    const auto c = points.load_latest(&notes);
    REQUIRE(c);
    CHECK(c->step == 1);
    CHECK(value_of(*c) == 1);
    REQUIRE(notes.size() == 1);
    CHECK(contains(notes[0], "step 2 cannot be used"));
    CHECK(contains(notes[0], "Falling back to the one of step 1"));
    write_file(tensors, good_tensors);
    write_file(header, good_header);
  };
  for (std::size_t at = 0; at < good_tensors.size(); at += 7) {
    flip_bit(tensors, at);
    falls_back("bit flip in the tensors");
  }
  for (std::size_t at = 0; at + 1 < good_header.size(); at += 5) {  // the last byte is a newline after the JSON
    if (std::isspace(static_cast<unsigned char>(good_header[at]))) continue;
    flip_bit(header, at);
    falls_back("bit flip in the state");
  }
  for (const std::size_t keep : {std::size_t(0), std::size_t(7), good_tensors.size() / 2, good_tensors.size() - 1}) {
    fs::resize_file(tensors, keep);
    falls_back("truncated tensors");
  }
  for (const std::size_t keep : {std::size_t(0), good_header.size() / 2, good_header.size() - 3}) {
    fs::resize_file(header, keep);
    falls_back("truncated state");
  }
  fs::remove(tensors);
  falls_back("missing tensors");
  write_file(tensors, good_tensors + "x");
  falls_back("grown tensors");
  write_file(header, "[1]");
  falls_back("another document");
  std::vector<std::string> notes;
  CHECK(points.load_latest(&notes)->step == 2);
  CHECK(notes.empty());
}

TEST_CASE("checkpoint: when all are damaged the answer is nothing, with a sentence for each") {
  const TemporaryFolder folder;
  Checkpoints points(folder.path());
  points.save(1, model(1), {});
  points.save(2, model(2), {});
  flip_bit(folder / "step-1.safetensors", 100);
  flip_bit(folder / "step-2.safetensors", 100);
  std::vector<std::string> notes;
  CHECK_FALSE(points.load_latest(&notes));
  REQUIRE(notes.size() == 2);
  CHECK(contains(notes[1], "from its beginning"));
  CHECK(contains(error_text(Kind::format, [&] { open_checkpoint(folder.path()); }), "checksum"));
}

TEST_CASE("checkpoint: saving the same step again replaces it") {
  const TemporaryFolder folder;
  Checkpoints points(folder.path());
  points.save(1, model(1), {});
  points.save(5, model(2), {});
  points.save(5, model(3), {});
  points.save(5, model(4), {});
  CHECK(value_of(*points.load_latest(nullptr)) == 4);
  CHECK(names(folder.path()).size() == 4);
  CHECK(value_of(open_checkpoint(folder / "step-5.json")) == 4);
}

TEST_CASE("checkpoint: restoring into another model names the tensor and changes nothing") {
  const TemporaryFolder folder;
  Checkpoints points(folder.path());
  points.save(1, model(7), {});
  const Checkpoint c = *points.load_latest(nullptr);
  auto other = model(0, 6);
  CHECK(contains(error_text(Kind::shape, [&] { c.restore(other); }), "head.weight"));
  auto fewer = model(0);
  fewer.pop_back();
  CHECK(contains(error_text(Kind::format, [&] { c.restore(fewer); }), "count"));
  auto more = model(0);
  more.push_back({{"extra", Tensor::zeros({1}, DType::f32, kCpu)}, {}});
  CHECK(contains(error_text(Kind::format, [&] { c.restore(more); }), "extra"));
  CHECK(more[0].tensor.to_host() == std::vector<double>(15, 0.0));
  auto wrong = model(0);
  wrong[1].tensor = Tensor::zeros({2}, DType::f32, kCpu);
  CHECK(contains(error_text(Kind::dtype, [&] { c.restore(wrong); }), "precision"));
  CHECK(wrong[0].tensor.to_host() == std::vector<double>(15, 0.0));
}

TEST_CASE("checkpoint: a full disk throws, and the earlier checkpoint stays good") {
  const MountedFolder disk("128k");
  if (!disk) return;
  Checkpoints points(disk.path() / "checkpoints");
  points.save(1, model(1), {});
  const std::string text = error_text(Kind::io, [&] { points.save(2, model(2, 30000), {}); });
  CHECK(contains(text, "No space left on device"));
  CHECK(contains(text, "step-2.safetensors"));
  CHECK(value_of(*points.load_latest(nullptr)) == 1);
  CHECK(names(points.folder()) == std::vector<std::string>{"step-1.json", "step-1.safetensors"});
  error_text(Kind::io, [&] {
    points.save(2, model(2), {{"long", std::string(200000, 'x')}});
  });  // the JSON does not fit
  CHECK(names(points.folder()).size() == 2);
  points.save(2, model(2), {});
  CHECK(value_of(*points.load_latest(nullptr)) == 2);
}

TEST_CASE("checkpoint: a read-only folder is a clear error") {
  const MountedFolder disk("128k");
  if (!disk) return;
  Checkpoints points(disk.path() / "checkpoints");
  points.save(1, model(1), {});
  disk.make_read_only();
  CHECK(contains(error_text(Kind::io, [&] { points.save(2, model(2), {}); }), "Read-only file system"));
  CHECK(value_of(*points.load_latest(nullptr)) == 1);
}

TEST_CASE(
    "checkpoint: a process killed at random moments always leaves a whole one, never an older than the last reported") {
  const TemporaryFolder folder;
  std::uint32_t random = 1;
  double least = 0;
  for (int round = 0; round < 20; ++round) {
    int reported[2];
    REQUIRE(::pipe(reported) == 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::close(reported[0]);
      try {
        Checkpoints points(folder.path());
        const auto latest = points.load_latest(nullptr);
        for (std::int64_t step = latest ? latest->step + 1 : 1;; ++step) {
          points.save(step, model(double(step % 256)), {{"s", step}});  // bf16 holds every whole number up to 256
          if (::write(reported[1], &step, sizeof step) != sizeof step) ::_exit(1);
        }
      } catch (...) {}
      ::_exit(1);
    }
    ::close(reported[1]);
    std::int64_t step = 0;
    REQUIRE(::read(reported[0], &step, sizeof step) == sizeof step);
    random = random * 1664525u + 1013904223u;
    ::usleep(random >> 17);  // up to 33 ms, many saves
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    for (std::int64_t more = 0; ::read(reported[0], &more, sizeof more) == sizeof more;) step = more;
    ::close(reported[0]);
    std::vector<std::string> notes;
    const auto c = Checkpoints(folder.path()).load_latest(&notes);
    REQUIRE(c);
    CHECK(notes.empty());
    CHECK(c->step >= step);
    CHECK(c->state["s"] == c->step);
    CHECK(value_of(*c) == double(c->step % 256));
    CHECK(double(c->step) > least);
    least = double(c->step);
  }
}

TEST_CASE("open_checkpoint: takes a run folder, a checkpoints folder, the JSON or the tensors") {
  const TemporaryFolder folder;
  Checkpoints points(folder / "checkpoints");
  points.save(3, model(3), {});
  points.save(4, model(4), {});
  CHECK(value_of(open_checkpoint(folder.path())) == 4);
  CHECK(value_of(open_checkpoint(folder / "checkpoints")) == 4);
  CHECK(value_of(open_checkpoint(folder / "checkpoints/step-3.json")) == 3);
  CHECK(value_of(open_checkpoint(folder / "checkpoints/step-3.safetensors")) == 3);
  error_text(Kind::io, [&] { open_checkpoint(folder / "none"); });
  error_text(Kind::io, [&] { open_checkpoint(folder / "checkpoints/step-9.safetensors"); });
}

namespace {

/// Rank 0 of two keeps elements 0..1 and 5..6 of "w" [7], rank 1 the others, one behind the other; "b" is whole.
std::vector<StateTensor> part_of_two(int rank, double fill) {
  const std::vector<double> mine = rank == 0 ? std::vector{0.0, 1.0, 5.0, 6.0} : std::vector{2.0, 3.0, 4.0};
  std::vector<double> w;
  for (const double x : mine) w.push_back(fill * x);
  TensorPart part{{7}, {}};
  if (rank == 0)
    part.pieces = {{0, 2, 0}, {5, 2, 2}};
  else
    part.pieces = {{2, 3, 0}};
  const std::vector<double> b{fill};
  return {{{"w", Tensor::from(w, {std::int64_t(w.size())}, DType::f32, kCpu)}, part},
          {{"b", Tensor::from(b, {1}, DType::f32, kCpu)}, {}}};
}

std::vector<json> write_two(const Checkpoints& points, std::int64_t step, double fill) {
  std::vector<json> files;
  const std::string name = points.new_name(step);
  for (int rank = 0; rank < 2; ++rank)
    files.push_back(points.write_file_of_rank(name, rank, step, part_of_two(rank, fill)));
  return files;
}

}  // namespace

TEST_CASE("checkpoint: parts that ranks wrote read as whole tensors, and as other parts") {
  const TemporaryFolder folder;
  Checkpoints points(folder.path());
  points.publish(3, write_two(points, 3, 10.0), {{"task", 3}});
  CHECK(names(folder.path()) ==
        std::vector<std::string>{"step-3.json", "step-3.rank-1.safetensors", "step-3.safetensors"});
  const Checkpoint c = *points.load_latest(nullptr);
  const std::vector<double> all{0, 10, 20, 30, 40, 50, 60};
  CHECK(c.tensors.load("w", kCpu).to_host() == all);
  CHECK(c.tensors.entries().size() == 2);
  CHECK(c.tensors.find("w")->shape == Shape{7});
  // A reference device reads the same in double; three ranks want other pieces.
  const Tensor wide = Tensor::zeros({7}, DType::f64, kReference);
  c.tensors.load_into(*c.tensors.find("w"), wide);
  CHECK(wide.to_host() == all);
  const StateTensor third{{"w", Tensor::zeros({3}, DType::f32, kCpu)}, TensorPart{{7}, {{1, 1, 0}, {4, 2, 1}}}};
  c.tensors.load_into(*c.tensors.find("w"), third);
  CHECK(third.tensor.to_host() == std::vector<double>{10, 40, 50});
  const StateTensor in_place{{"w", Tensor::zeros({7}, DType::f32, kCpu)}, TensorPart{{7}, {{4, 2, 4}}}};
  c.tensors.load_into(*c.tensors.find("w"), in_place);
  CHECK(in_place.tensor.to_host() == std::vector<double>{0, 0, 0, 0, 40, 50, 0});
  for (const char* name : {"step-3.json", "step-3.safetensors", "step-3.rank-1.safetensors"})
    CHECK(open_checkpoint(folder / name).state.at("task") == 3);
  // Into another model: named, and nothing written.
  std::vector<StateTensor> other = part_of_two(0, 0.0);
  other[0].part->whole = {8};
  CHECK(contains(error_text(Kind::shape, [&] { c.restore(other); }), "tensor w has shape [7], expected [8]"));
  CHECK(other[1].tensor.to_host()[0] == 0.0);
}

TEST_CASE("checkpoint: parts without their JSON are no checkpoint, and go with the next one") {
  const TemporaryFolder folder;
  Checkpoints points(folder.path());
  points.publish(1, write_two(points, 1, 1.0), {});
  write_two(points, 2, 2.0);  // a rank was lost before the first could publish them
  CHECK(points.load_latest(nullptr)->step == 1);
  CHECK(names(folder.path()).size() == 5);
  points = Checkpoints(folder.path());  // the next start, whose disk may be full
  CHECK(names(folder.path()).size() == 3);
  CHECK(points.load_latest(nullptr)->step == 1);
  write_two(points, 2, 2.0);
  points.publish(3, write_two(points, 3, 3.0), {});
  CHECK(names(folder.path()).size() == 6);
  // Saved again under a number that is there: the files of the first save stay until the new JSON names others.
  const std::vector<json> again = write_two(points, 3, 4.0);
  CHECK(points.load_latest(nullptr)->tensors.load("w", kCpu).to_host()[1] == 3.0);
  points.publish(3, again, {});
  CHECK(points.load_latest(nullptr)->tensors.load("w", kCpu).to_host()[1] == 4.0);
  CHECK(names(folder.path()).size() == 6);
}

TEST_CASE("checkpoint: parts that leave a hole, overlap or are not there are refused by name") {
  const TemporaryFolder folder;
  Checkpoints points(folder.path());
  const auto refused = [&](const std::function<void(std::vector<json>&)>& spoil) {
    std::vector<json> files = write_two(points, 1, 1.0);
    spoil(files);
    points.publish(1, files, {});
    return error_text(Kind::format, [&] { open_checkpoint(folder / "step-1.json"); });
  };
  CHECK(contains(refused([](auto& files) { files.pop_back(); }),
                 "of the divided tensor w, [7], a piece of 2 begins at 5, where 2 was expected"));
  CHECK(contains(refused([](auto& files) {
                   files[1]["pieces"]["w"] = json::array({json::array({3, 3})});
                 }),
                 "where 2 was expected"));
  CHECK(contains(refused([](auto& files) {
                   files[1]["pieces"]["w"] = json::array({json::array({2, 4})});
                 }),
                 "not as long as the pieces"));
  CHECK(contains(refused([](auto& files) {
                   files[1]["pieces"]["w"] = json::array({json::array({2, -3})});
                 }),
                 "not as long as the pieces"));
  CHECK(contains(refused([](auto& files) {
                   files[1]["pieces"]["x"] = json::array({json::array({2, 3})});
                 }),
                 "should hold pieces of x"));
  CHECK(contains(refused([](auto& files) { files[0]["divided"]["w"] = json::array({9}); }),
                 "has 9 elements, its files hold 7"));
  CHECK(contains(refused([](auto& files) { files[1]["pieces"]["w"] = "none"; }), "is damaged"));
}
