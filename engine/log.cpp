// engine/log.cpp - JSON lines that survive being killed.
#include "engine/log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>

#include "engine/error.h"

namespace eg {
namespace {

/// Length of the valid UTF-8 sequence at text[i], 0 when there is none (RFC 3629: no surrogates, no overlong forms).
std::size_t utf8_length(std::string_view text, std::size_t i) {
  const auto byte = [&](std::size_t k) { return k < text.size() ? unsigned(static_cast<unsigned char>(text[k])) : 0u; };
  const unsigned a = byte(i), b = byte(i + 1);
  const auto tail = [&](std::size_t k) { return (byte(k) & 0xc0u) == 0x80u; };
  if (a < 0x80) return 1;
  if (a >= 0xc2 && a <= 0xdf) return tail(i + 1) ? 2 : 0;
  if (a >= 0xe0 && a <= 0xef) {
    const bool second = tail(i + 1) && !(a == 0xe0 && b < 0xa0) && !(a == 0xed && b > 0x9f);
    return second && tail(i + 2) ? 3 : 0;
  }
  if (a >= 0xf0 && a <= 0xf4) {
    const bool second = tail(i + 1) && !(a == 0xf0 && b < 0x90) && !(a == 0xf4 && b > 0x8f);
    return second && tail(i + 2) && tail(i + 3) ? 4 : 0;
  }
  return 0;
}

/// Length up to and including the last newline at or before `size`.
std::uint64_t last_complete(int fd, std::uint64_t size, const std::filesystem::path& path) {
  std::array<char, 4096> block{};
  while (size > 0) {
    const std::size_t n = std::size_t(std::min<std::uint64_t>(size, block.size()));
    read_at(fd, size - n, std::as_writable_bytes(std::span(block)).first(n), path);
    for (std::size_t i = n; i > 0; --i)
      if (block[i - 1] == '\n') return size - n + i;
    size -= n;
  }
  return 0;
}

}  // namespace

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t n = utf8_length(text, i);
    const char c = text[i];
    if (n == 0) {
      out += "\\ufffd";
    } else if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      constexpr const char* kHex = "0123456789abcdef";
      ((out += "\\u00") += kHex[(c >> 4) & 15]) += kHex[c & 15];
    } else {
      out += text.substr(i, n);
    }
    i += std::max<std::size_t>(n, 1);
  }
  return out + '"';
}

std::string json_number(double value) {
  if (std::isnan(value)) return "\"nan\"";
  if (std::isinf(value)) return value > 0 ? "\"inf\"" : "\"-inf\"";
  std::array<char, 40> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), end.ptr};
}

LogLine& LogLine::raw(std::string_view key, std::string_view json) {
  ((text_ += ',') += json_quote(key)) += ':';
  text_ += json;
  return *this;
}

LogLine& LogLine::add(std::string_view key, std::span<const double> values) {
  std::string list = "[";
  for (std::size_t i = 0; i < values.size(); ++i) (list += i ? "," : "") += json_number(values[i]);
  return raw(key, list + "]");
}

JsonLog::JsonLog(std::filesystem::path path, std::optional<std::uint64_t> keep_bytes) : path_(std::move(path)) {
  file_ = FileHandle(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  check(bool(file_), Kind::io, [&] { return io_message("write", path_, errno); });
  struct stat info {};
  check(::fstat(file_.get(), &info) == 0, Kind::io, [&] { return io_message("inspect", path_, errno); });
  check(S_ISREG(info.st_mode), Kind::io, [&] { return cat("cannot write ", path_.string(), ": not a regular file"); });
  const auto size = std::uint64_t(info.st_size);
  bytes_ = last_complete(file_.get(), keep_bytes ? std::min(size, *keep_bytes) : size, path_);
  removed_ = size - bytes_;
  if (removed_ > 0)
    check(::ftruncate(file_.get(), off_t(bytes_)) == 0, Kind::io, [&] { return io_message("shorten", path_, errno); });
}

void JsonLog::write(const LogLine& line) {
  if (!file_) return;
  const std::string text = line.text() + '\n';
  try {
    write_all(file_.get(), std::as_bytes(std::span(text.data(), text.size())), path_);
  } catch (const Error&) {
    // Best effort: if this fails too, the next open cuts the torn line.
    [[maybe_unused]] const int shortened = ::ftruncate(file_.get(), off_t(bytes_));
    throw;
  }
  bytes_ += text.size();
}

void JsonLog::sync() {
  if (!file_) return;
  check(::fsync(file_.get()) == 0, Kind::io, [&] { return io_message("write", path_, errno); });
}

}  // namespace eg
