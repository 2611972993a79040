// engine/log.h - events as JSON lines: one object per line, appended, complete or absent.
//
// A run that was killed and resumed must leave the log it would have left undisturbed. So a checkpoint records
// JsonLog::bytes(), and resuming cuts the file back to that length before it appends.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/file.h"

namespace eg {

/// `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
std::string json_quote(std::string_view text);
/// The shortest text that reads back as the same double. JSON has no NaN and no infinity: they become the strings
/// "nan", "inf" and "-inf", which a reader can still tell apart.
std::string json_number(double value);

/// Builds one line: LogLine("task").add("task", 3).add("loss", 0.25) gives {"event":"task","task":3,"loss":0.25}.
class LogLine {
 public:
  explicit LogLine(std::string_view event) : text_("{\"event\":" + json_quote(event)) {}
  LogLine& add(std::string_view key, std::string_view value) { return raw(key, json_quote(value)); }
  LogLine& add(std::string_view key, const char* value) { return add(key, std::string_view(value)); }
  LogLine& add(std::string_view key, const std::string& value) { return add(key, std::string_view(value)); }
  LogLine& add(std::string_view key, bool value) { return raw(key, value ? "true" : "false"); }
  LogLine& add(std::string_view key, double value) { return raw(key, json_number(value)); }
  LogLine& add(std::string_view key, float value) { return raw(key, json_number(double(value))); }
  template <class T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) LogLine& add(std::string_view key, T value) {
    return raw(key, std::to_string(value));
  }
  LogLine& add(std::string_view key, std::span<const double> values);
  /// `json` is already JSON on one line.
  LogLine& raw(std::string_view key, std::string_view json);
  std::string text() const { return text_ + "}"; }

 private:
  std::string text_;
};

class JsonLog {
 public:
  /// Takes lines and keeps none: for ranks that leave the log to the first one.
  JsonLog() = default;
  /// Creates `path` or continues it. keep_bytes: cut the file to that many bytes first (what a checkpoint recorded).
  /// Whatever the length, a torn last line is removed. Throws Error{io}.
  explicit JsonLog(std::filesystem::path path, std::optional<std::uint64_t> keep_bytes = std::nullopt);
  /// Appends one line in one write, visible to other processes at once. When the disk is full the part already written
  /// is taken back and Error{io} is thrown.
  void write(const LogLine& line);
  /// Length of the file: what a checkpoint records.
  std::uint64_t bytes() const { return bytes_; }
  /// fsync; call it before the checkpoint that records bytes().
  void sync();
  const std::filesystem::path& path() const { return path_; }
  /// Bytes that opening removed: lines after keep_bytes and a torn line.
  std::uint64_t removed_bytes() const { return removed_; }

 private:
  std::filesystem::path path_;
  FileHandle file_;
  std::uint64_t bytes_ = 0, removed_ = 0;
};

}  // namespace eg
