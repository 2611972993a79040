// tests/engine/test_safetensors.cpp - the format byte for byte, round trips, and every way a file can be wrong.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/file.h"
#include "engine/safetensors.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {

std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string text(8, '\0');
  const std::uint64_t n = header.size();
  std::memcpy(text.data(), &n, 8);
  return text + header + std::string(data_bytes, '\x01');
}
SafetensorsFile parse(const std::string& text) {
  return SafetensorsFile::parse(std::as_bytes(std::span(text.data(), text.size())), "test.safetensors");
}
/// The message of the Error{format} that these bytes must give.
std::string refusal(const std::string& text) {
  return error_text(Kind::format, [&] { parse(text); });
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
Tensor make(const Shape& shape, DType dtype, double first = 0.0) {
  std::vector<double> v(static_cast<std::size_t>(shape.size()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = first + double(i);
  return Tensor::from(std::span<const double>(v), shape, dtype, kCpu);
}

}  // namespace

TEST_CASE("safetensors: a hand-made file in the documented layout is read") {
  const std::string header =
      R"({"__metadata__":{"who":"me"},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"U8","shape":[],"data_offsets":[8,9]},"none":{"dtype":"F64","shape":[0,3],"data_offsets":[8,8]}}  )";
  std::string text = file_of(header, 0);
  const float values[2] = {1.5f, -2.0f};
  text += std::string(reinterpret_cast<const char*>(values), 8) + '\x07';
  const SafetensorsFile file = parse(text);
  REQUIRE(file.entries().size() == 3);
  CHECK(file.metadata().at("who") == "me");
  CHECK(file.load("b", kCpu).to_host() == std::vector<double>{1.5, -2.0});
  CHECK(file.load("a", kReference).to_host() == std::vector<double>{7});
  CHECK(file.load("none", kCpu).shape() == Shape{0, 3});
  CHECK(file.find("c") == nullptr);
  CHECK(contains(error_text(Kind::format, [&] { file.load("c", kCpu); }), "'b'"));
}

TEST_CASE("safetensors: what is written is read back bitwise, in every type, from and to every host device") {
  const TemporaryFolder folder;
  const fs::path path = folder / "x.safetensors";
  std::vector<NamedTensor> list;
  for (const DType t : {DType::u8, DType::f32, DType::bf16, DType::i32, DType::f64})
    list.push_back({cat("t.", t), make({3, 5}, t, 1)});
  list.push_back({"scalar", make({}, DType::f32, -1)});
  list.push_back({"empty", make({4, 0}, DType::bf16)});
  list.push_back({"quote\"\\ \xc3\xa9", make({1}, DType::f32).to(kReference)});
  list[1].tensor.data_as<float>()[0] = NAN;
  const auto written = write_safetensors(path, list, {{"step", "7"}, {"note", "a\nb"}});
  const std::string bytes = read_file(path);
  CHECK(written.bytes == bytes.size());
  CHECK(written.checksum == checksum_of(std::as_bytes(std::span(bytes.data(), bytes.size()))));
  const SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.metadata().at("note") == "a\nb");
  REQUIRE(file.entries().size() == list.size());
  for (const NamedTensor& item : list) {
    const Tensor back = file.load(item.name, kCpu);
    CHECK(back.dtype() == item.tensor.dtype());
    CHECK(back.shape() == item.tensor.shape());
    if (back.bytes()) CHECK(std::memcmp(back.data(), item.tensor.data(), back.bytes()) == 0);
    CHECK(file.load(item.name, kReference).device() == kReference);
  }
}

TEST_CASE("safetensors: the layout written is the documented one, aligned to 8 and independent of the given order") {
  const TemporaryFolder folder;
  const std::vector<NamedTensor> list = {
      {"b", make({3}, DType::u8)}, {"z", make({1}, DType::f32)}, {"a", make({1}, DType::f32)}};
  const std::vector<NamedTensor> turned = {list[2], list[0], list[1]};
  write_safetensors(folder / "1", list);
  write_safetensors(folder / "2", turned);
  const std::string text = read_file(folder / "1");
  CHECK(text == read_file(folder / "2"));
  std::uint64_t n = 0;
  std::memcpy(&n, text.data(), 8);
  CHECK(n % 8 == 0);
  const auto header = nlohmann::json::parse(text.substr(8, n));
  CHECK(header["a"]["data_offsets"] == nlohmann::json({0, 4}));
  CHECK(header["z"]["data_offsets"] == nlohmann::json({4, 8}));
  CHECK(header["b"]["dtype"] == "U8");
  CHECK(header["b"]["shape"] == nlohmann::json({3}));
  CHECK(text.size() == 8 + n + 11);
  write_safetensors(folder / "3", list, {}, SafetensorsOrder::given);
  CHECK(SafetensorsFile::open(folder / "3").entries()[0].name == "b");
  write_safetensors(folder / "none", {});
  CHECK(SafetensorsFile::open(folder / "none").entries().empty());
}

TEST_CASE("safetensors: F16 is widened exactly, I64 narrowed when it fits") {
  std::string text = file_of(
      R"({"h":{"dtype":"F16","shape":[8],"data_offsets":[0,16]},"l":{"dtype":"I64","shape":[2],"data_offsets":[16,32]}})",
      0);
  const std::uint16_t half[8] = {0x3c00, 0xc000, 0x0001, 0x03ff, 0x7bff, 0x7c00, 0xfc00, 0x7e01};
  std::int64_t whole[2] = {-5, 2147483647};
  text += std::string(reinterpret_cast<const char*>(half), 16);
  const std::string good = text + std::string(reinterpret_cast<const char*>(whole), 16);
  const SafetensorsFile file = parse(good);
  const auto v = file.load("h", kCpu).to_host();
  CHECK(v[0] == 1);
  CHECK(v[1] == -2);
  CHECK(v[2] == 0x1p-24);
  CHECK(v[3] == 1023 * 0x1p-24);
  CHECK(v[4] == 65504);
  CHECK(v[5] == INFINITY);
  CHECK(v[6] == -INFINITY);
  CHECK(std::isnan(v[7]));
  CHECK(file.load("l", kCpu).dtype() == DType::i32);
  CHECK(file.load("l", kCpu).to_host() == std::vector<double>{-5, 2147483647});
  whole[1] = 2147483648;
  const std::string wide = text + std::string(reinterpret_cast<const char*>(whole), 16);
  const SafetensorsFile bad = parse(wide);
  CHECK(contains(error_text(Kind::format, [&] { bad.load("l", kCpu); }), "2147483648"));
}

TEST_CASE("safetensors: loading into a tensor checks shape and type first") {
  const std::string text = file_of(R"({"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})", 16);
  const SafetensorsFile file = parse(text);
  const auto& e = *file.find("w");
  const std::string shape = error_text(Kind::shape, [&] { file.load_into(e, make({4}, DType::f32)); });
  CHECK(contains(shape, "[2,2]"));
  CHECK(contains(shape, "[4]"));
  CHECK(contains(error_text(Kind::dtype, [&] { file.load_into(e, make({2, 2}, DType::bf16)); }), "bf16"));
  // Widening loses nothing; narrowing would, and the message says which device holds such numbers.
  const Tensor wide = make({2, 2}, DType::f64).to(kReference);
  file.load_into(e, wide);
  CHECK(wide.to_host() == file.load("w", kCpu).to_host());
  const std::string doubles = file_of(R"({"w":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}})", 16);
  const SafetensorsFile exact = parse(doubles);
  CHECK(contains(error_text(Kind::dtype, [&] { exact.load_into(*exact.find("w"), make({2}, DType::f32)); }),
                 "--device reference"));
}

TEST_CASE("safetensors: every rule of the header is enforced, with a message that names it") {
  const auto tensor = [](const std::string& body) { return "{\"w\":{" + body + "}}"; };
  CHECK(contains(refusal(""), "0 bytes"));
  CHECK(contains(refusal("1234567"), "7 bytes"));
  CHECK(contains(refusal(std::string(8, '\xff')), "limit"));
  CHECK(contains(refusal(std::string("\x10\0\0\0\0\0\0\0{}", 10)), "truncated"));
  CHECK(contains(refusal(file_of("", 0)), "'{'"));
  CHECK(contains(refusal(file_of(" {}", 0)), "'{'"));
  CHECK(contains(refusal(file_of("{}", 3)), "no tensor"));
  CHECK(contains(refusal(file_of("{} x", 0)), "JSON"));
  CHECK(contains(refusal(file_of("{", 0)), "JSON"));
  CHECK(contains(refusal(file_of(std::string("{}\0x", 4), 0)), "zero byte"));
  CHECK(contains(refusal(file_of("{\"a\":}", 0)), "JSON"));
  CHECK(contains(refusal(file_of("{\"\xff\":1}", 0)), "JSON"));
  CHECK(contains(refusal(file_of("{\"a\":1}", 0)), "number"));
  CHECK(contains(refusal(file_of("{\"a\":null}", 0)), "null"));
  CHECK(contains(refusal(file_of("{\"a\":true}", 0)), "true"));
  CHECK(contains(refusal(file_of("{\"a\":\"x\"}", 0)), "text"));
  CHECK(contains(refusal(file_of("{\"a\":[1]}", 0)), "list"));
  CHECK(contains(refusal(file_of("{\"a\":{}}", 0)), "missing"));
  CHECK(contains(refusal(file_of("{\"__metadata__\":{\"a\":1}}", 0)), "number"));
  CHECK(contains(refusal(file_of("{\"__metadata__\":{\"a\":{}}}", 0)), "nested"));
  CHECK(contains(refusal(file_of("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0)), "twice"));
  CHECK(contains(refusal(file_of("{\"__metadata__\":{},\"__metadata__\":{}}", 0)), "twice"));
  const std::string one = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  CHECK_NOTHROW(parse(file_of(tensor(one), 4)));
  CHECK(contains(refusal(file_of("{\"w\":{" + one + "},\"w\":{" + one + "}}", 4)), "twice"));
  CHECK(contains(refusal(file_of(tensor(one + ",\"shape\":[1]"), 4)), "twice"));
  CHECK(contains(refusal(file_of(tensor(one + ",\"more\":1"), 4)), "unknown field"));
  CHECK(contains(refusal(file_of(tensor(one), 3)), "truncated"));
  CHECK(contains(refusal(file_of(tensor(one), 5)), "no tensor"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F31","shape":[1],"data_offsets":[0,4])"), 4)), "unknown dtype"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"I16","shape":[2],"data_offsets":[0,4])"), 4)), "not supported"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), 4)), "negative"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), 4)), "whole"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4])"), 4)),
                 "2^64"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"), 4)), "list"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[1,1,1,1,1,1,1],"data_offsets":[0,4])"), 4)), "axes"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4)), "needs 8 bytes"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), 4)), "instead of 2"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), 4)), "do not lie"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615])"), 4)),
                 "do not lie"));
  // 2^32 x 2^32 x 4 bytes is 0 modulo 2^64; also beside an extent of zero.
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0)),
                 "overflows"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0])"), 0)),
                 "overflows"));
  CHECK(contains(refusal(file_of(tensor(R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,0])"), 0)),
                 "overflows"));
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  CHECK_NOTHROW(parse(file_of(two("[4,8]", "[0,4]"), 8)));
  CHECK(contains(refusal(file_of(two("[0,4]", "[2,6]"), 6)), "overlap"));
  CHECK(contains(refusal(file_of(two("[0,4]", "[0,4]"), 4)), "overlap"));
  CHECK(contains(refusal(file_of(two("[0,4]", "[5,9]"), 9)), "hole"));
  CHECK(contains(refusal(file_of(two("[1,5]", "[5,9]"), 9)), "hole"));
  const std::string deep(100000, '[');
  CHECK(contains(refusal(file_of("{\"a\":" + deep, 0)), "list"));
}

TEST_CASE("safetensors: whatever is wrong with a header, the message names the tensor and where it lies") {
  struct Bad {
    std::string file;
    std::vector<std::string> parts;
  };
  const auto body = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"("w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
  };
  const auto file = [](const std::string& entries, std::size_t data) { return file_of("{" + entries + "}", data); };
  const std::string v = R"("v":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)";
  const std::vector<Bad> all = {
      // truncated and oversized: of the data, of one tensor, of the header itself
      {file(v + body("F32", "[2]", "[4,12]"), 7), {"tensor 'w'", "[4,12]", "data part of 7 bytes", "truncated"}},
      {file(v + body("F32", "[2]", "[4,12]"), 15), {"tensor 'w' ends at data byte 12", "3 bytes", "no tensor"}},
      {file("", 3), {"the data part begins at data byte 0", "3 bytes"}},
      {file(v + body("F32", "[2]", "[4,8]"), 8), {"tensor 'w'", "[4,8]", "needs 8 bytes", "hold 4"}},
      {file(v + body("F32", "[4611686018427387904]", "[4,8]"), 8), {"tensor 'w'", "[4,8]", "[46116", "overflows"}},
      {file(v + body("F32", "[1,1,1,1,1,1,1]", "[4,8]"), 8), {"tensor 'w'", "[4,8]", "7 axes"}},
      {file(v + body("F32", "[1]", "[4,8,9]"), 8), {"tensor 'w'", "[4,8,9]", "3 numbers instead of 2"}},
      {file(v + body("F32", "[1]", "[8,4]"), 8), {"tensor 'w'", "[8,4]", "do not lie"}},
      // overlap and hole
      {file(v + body("F32", "[1]", "[3,7]"), 7),
       {"tensor 'w' begins at data byte 3", "tensor 'v' ends at 4", "overlap"}},
      {file(v + body("F32", "[1]", "[5,9]"), 9), {"tensor 'w' begins at data byte 5", "tensor 'v' ends at 4", "hole"}},
      {file(body("F32", "[1]", "[5,9]"), 9), {"tensor 'w' begins at data byte 5", "the data part begins at 0", "hole"}},
      // wrong types
      {file(v + body("F31", "[1]", "[4,8]"), 8), {"tensor 'w'", "[4,8]", "unknown dtype 'F31'"}},
      {file(v + body("I16", "[2]", "[4,8]"), 8), {"tensor 'w'", "[4,8]", "dtype I16 is not supported", "convert"}},
      // what the parser meets: it has read up to the offence, behind a number one byte more
      // (8 + "{" and 52 of v end at byte 60; -1 stands in bytes 89 and 90, the brace of w in 79, 7 in 61)
      {file(v + body("F32", "[-1]", "[4,8]"), 8), {"tensor 'w'", "negative", "bytes 8 to 91 of the file"}},
      {file(v + body("F32", "[1]", "[4,8]") + "," + body("F32", "[1]", "[4,8]"), 8), {"tensor 'w'", "occurs twice"}},
      {file(v + R"("w":{"dtype":"F32"})", 4), {"tensor 'w'", "missing", "bytes 8 to 79 of the file"}},
      {file(v + R"("w":7)", 4), {"tensor 'w'", "a number stands"}},
      {file(v + R"("w":{"dtype":"F32)", 4), {"tensor 'w'", "not valid JSON", "of the file"}},
      {file(v + R"("__metadata__":{"a":7})", 4), {"__metadata__: a number", "of the file"}},
      {file(v + "7", 4), {"not valid JSON", "bytes 8 to 62 of the file"}},
      {file_of(std::string("{\0}", 3), 0), {"byte 9 of the file is a zero byte"}}};
  for (const Bad& bad : all) {
    const std::string text = refusal(bad.file);
    for (const std::string& part : bad.parts) {
      INFO(text);
      INFO("expected: ", part);
      CHECK(contains(text, part));
    }
    CHECK(contains(text, "test.safetensors: "));
  }
  // Once open: a tensor that does not fit, a value that does not fit.
  const std::string good = file(body("I64", "[2]", "[0,16]"), 16);
  const SafetensorsFile open = parse(good);
  const SafetensorsEntry& w = *open.find("w");
  const std::string at = cat("tensor 'w' at byte ", good.size() - 16, " ");
  CHECK(contains(error_text(Kind::shape, [&] { open.load_into(w, make({3}, DType::i32)); }), at));
  CHECK(contains(error_text(Kind::dtype, [&] { open.load_into(w, make({2}, DType::f32)); }), at));
  CHECK(
      contains(error_text(Kind::format, [&] { open.load(w, kCpu); }), cat("byte ", good.size() - 16, " of the file")));
}

TEST_CASE("safetensors: a name with control characters or of any length does not spoil the message") {
  const std::string name = std::string(5000, 'n');
  const std::string text = refusal(file_of("{\"\\u001b[31m" + name + "\":{}}", 0));
  CHECK(text.size() < 300);
  CHECK_FALSE(contains(text, "\x1b"));
  CHECK(refusal(file_of("{\"" + name, 0)).size() < 400);  // the parser repeats what it read last
}

TEST_CASE("safetensors: no truncation of a good file is accepted, no damaged byte crashes") {
  const TemporaryFolder folder;
  const std::vector<NamedTensor> list = {{"a", make({3}, DType::u8)}, {"b", make({2, 2}, DType::f32)}};
  write_safetensors(folder / "x", list, {{"k", "v"}});
  const std::string good = read_file(folder / "x");
  for (std::size_t n = 0; n < good.size(); ++n) CHECK_THROWS_AS(parse(good.substr(0, n)), Error);
  CHECK_THROWS_AS(parse(good + '\0'), Error);
  for (std::size_t i = 0; i < good.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = char(bad[i] ^ (1 << bit));
      try {
        const SafetensorsFile file = parse(bad);
        for (const auto& e : file.entries()) file.load(e, kCpu);
      } catch (const Error&) {}
    }
}

TEST_CASE("safetensors: a file that shrinks after it was opened is an error, not a crash") {
  const TemporaryFolder folder;
  write_safetensors(folder / "x", std::vector<NamedTensor>{{"a", make({1000}, DType::f32)}});
  const SafetensorsFile file = SafetensorsFile::open(folder / "x");
  fs::resize_file(folder / "x", 500);
  CHECK(contains(error_text(Kind::io, [&] { file.load("a", kCpu); }), "truncated"));
}

TEST_CASE("safetensors: writing refuses doubtful names and empty handles before touching the disk") {
  const TemporaryFolder folder;
  const Tensor t = make({1}, DType::f32);
  using List = std::vector<NamedTensor>;
  error_text(Kind::usage, [&] { write_safetensors(folder / "x", List{{"a", t}, {"a", t}}); });
  error_text(Kind::usage, [&] { write_safetensors(folder / "x", List{{"__metadata__", t}}); });
  error_text(Kind::usage, [&] { write_safetensors(folder / "x", List{{"a", Tensor()}}); });
  error_text(Kind::usage, [&] { write_safetensors(folder / "x", List{{"\xff", t}}); });
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("safetensors: a full disk keeps the old file") {
  const MountedFolder disk("64k");
  if (!disk) return;
  const fs::path path = disk.path() / "x";
  write_safetensors(path, std::vector<NamedTensor>{{"a", make({10}, DType::f32)}});
  const std::string text = error_text(Kind::io, [&] {
    write_safetensors(path, std::vector<NamedTensor>{{"a", make({100000}, DType::f32)}});
  });
  CHECK(contains(text, "No space left on device"));
  CHECK(SafetensorsFile::open(path).load("a", kCpu).size() == 10);
}

TEST_CASE("safetensors: missing files and folders are io errors with the path") {
  const TemporaryFolder folder;
  CHECK(contains(error_text(Kind::io, [&] { SafetensorsFile::open(folder / "none"); }), "none"));
  CHECK(contains(error_text(Kind::io, [&] { SafetensorsFile::open(folder.path()); }), "a folder"));
}

TEST_CASE("safetensors: every file of the corpus of bad files gives an error") {
  int files = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(EVERGRAD_TEST_FILES) / "fuzz/corpus/safetensors")) {
    ++files;
    INFO(entry.path().filename().string());
    CHECK_THROWS_AS(
        [&] {
          const SafetensorsFile file = SafetensorsFile::open(entry.path());
          for (const auto& e : file.entries()) file.load(e, kCpu);
        }(),
        Error);
  }
  CHECK(files >= 30);
}
