// engine/error.h - the one way evergrad reports a failure.
//
// Three kinds of failure, three mechanisms: a mistake of the caller or of the world throws Error before any state has
// changed; a bug of our own trips assert() in debug builds; an expected outcome (end of data) is a return value.
#pragma once
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace eg {

/// What sort of failure an Error is.
enum class Kind {
  usage,    // a flag, option or argument is wrong; the text names the remedy
  shape,    // tensor shapes do not fit together
  dtype,    // a data type is wrong for this place
  device,   // a device is absent or cannot do this
  io,       // a file could not be read or written
  format,   // a file was read, but its content is wrong
  memory,   // an allocation failed
  numeric,  // a value that must be finite is not
  internal  // evergrad contradicts itself: please report it
};

const char* to_string(Kind kind);

/// Where a call stands. std::source_location with its member names, for compilers (clang 14) that cannot offer it.
class SourceLocation {
 public:
  static constexpr SourceLocation current(const char* file = __builtin_FILE(),
                                          const char* function = __builtin_FUNCTION(),
                                          std::uint_least32_t line = __builtin_LINE()) noexcept {
    return SourceLocation(file, function, line);
  }
  constexpr const char* file_name() const noexcept { return file_; }
  constexpr const char* function_name() const noexcept { return function_; }
  constexpr std::uint_least32_t line() const noexcept { return line_; }

 private:
  constexpr SourceLocation(const char* file, const char* function, std::uint_least32_t line) noexcept
      : file_(file), function_(function), line_(line) {}
  const char* file_;
  const char* function_;
  std::uint_least32_t line_;
};

/// What failed, where, with which values, and what to do about it. what() is a sentence for people.
class Error : public std::runtime_error {
 public:
  Error(Kind what_kind, const std::string& text, SourceLocation where = SourceLocation::current())
      : std::runtime_error(text), kind(what_kind), at(where) {}
  Kind kind;
  SourceLocation at;
};

/// Joins anything that can be streamed into one string: cat("row ", 3, " of ", shape).
template <class... T>
std::string cat(const T&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// Throws Error unless ok. The text is a lambda, so that a passing check costs one branch.
template <class Text>
void check(bool ok, Kind kind, Text&& text, SourceLocation where = SourceLocation::current()) {
  if (!ok) [[unlikely]]
    throw Error(kind, std::forward<Text>(text)(), where);
}

[[noreturn]] inline void fail(Kind kind, const std::string& text, SourceLocation where = SourceLocation::current()) {
  throw Error(kind, text, where);
}

}  // namespace eg
