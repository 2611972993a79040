// apps/run/tensorboard.cpp - see tensorboard.h.
#include "apps/run/tensorboard.h"

#include <array>
#include <chrono>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/run/run_folder.h"
#include "engine/error.h"
#include "engine/file.h"
#ifdef EVERGRAD_HAVE_PROTOBUF
#include "event.pb.h"
#endif

namespace eg {

std::uint32_t crc32c(std::string_view bytes) {
  static const std::array<std::uint32_t, 256> table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  std::uint32_t c = 0xffffffffu;
  for (const char byte : bytes) c = table[(c ^ static_cast<unsigned char>(byte)) & 255u] ^ c >> 8;
  return ~c;
}

#ifdef EVERGRAD_HAVE_PROTOBUF
namespace {

using Json = nlohmann::json;

void put(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += char(value >> 8 * i & 255u);
}

/// One record: length, its checksum, the bytes, theirs. Checksums are masked, as the format wants it.
void add_record(std::string& out, const std::string& bytes) {
  const auto masked = [](std::string_view text) {
    const std::uint32_t c = crc32c(text);
    return (c >> 15 | c << 17) + 0xa282ead8u;
  };
  std::string length;
  put(length, bytes.size(), 8);
  out += length;
  put(out, masked(length), 4);
  out += bytes;
  put(out, masked(bytes), 4);
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void add_value(evergrad_events::Summary& summary, const std::string& tag, double value) {
  auto* v = summary.add_value();
  v->set_tag(tag), v->set_simple_value(float(value));
}

/// Numbers as they are, lists with one tag per entry.
void add_numbers(evergrad_events::Summary& summary, const std::string& tag, const Json& value) {
  if (value.is_number()) add_value(summary, tag, value.get<double>());
  if (!value.is_array()) return;
  for (std::size_t i = 0; i < value.size(); ++i)
    if (value[i].is_number()) add_value(summary, cat(tag, "/", i), value[i].get<double>());
}

void add_line(std::string& file, const Json& line) {
  evergrad_events::Event event;
  event.set_wall_time(now_seconds());
  event.set_step(line.value("task", std::int64_t(0)));
  auto& summary = *event.mutable_summary();
  if (line.value("event", "") == "task") {
    for (const auto& [key, value] : line.items())
      if (value.is_number() && key != "task" && key != "seed") add_numbers(summary, "task/" + key, value);
  } else {
    if (line.contains("step")) return;  // between tasks only: one step axis per file
    for (const char* kind : {"blocks", "model"})
      if (const auto at = line.find(kind); at != line.end())
        for (const auto& [key, value] : at->items()) add_numbers(summary, "diagnosis/" + key, value);
  }
  if (summary.value_size() > 0) add_record(file, event.SerializeAsString());
}

}  // namespace

bool write_event_files(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  std::ifstream in(folder / "metrics.jsonl");
  for (std::string text; std::getline(in, text);) {
    const Json line = Json::parse(text, nullptr, false);
    if (line.is_discarded() || !line.contains("method")) continue;
    std::string& file = files[run_name(line.value("method", ""), line.value("seed", std::uint64_t(0)))];
    if (file.empty()) {
      evergrad_events::Event first;
      first.set_wall_time(now_seconds()), first.set_file_version("brain.Event:2");
      add_record(file, first.SerializeAsString());
    }
    if (line.value("event", "") == "task" || line.value("event", "") == "diagnosis") add_line(file, line);
  }
  for (const auto& [name, bytes] : files) {
    const auto where = folder / "tensorboard" / name;
    std::error_code error;
    std::filesystem::create_directories(where, error);
    check(!error, Kind::io, [&] { return io_message("create the folder", where, error.value()); });
    write_file(where / "events.out.tfevents.0.evergrad", bytes);
  }
  return true;
}
#else
bool write_event_files(const std::filesystem::path&) { return false; }
#endif

}  // namespace eg
