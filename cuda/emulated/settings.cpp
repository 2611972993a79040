// cuda/emulated/settings.cpp - the environment variable EVERGRAD_EMULATED.
#include <charconv>
#include <cstdlib>

#include "cuda/emulated/streams.h"
#include "engine/error.h"

namespace eg::emulated {
namespace {

[[noreturn]] void refuse(std::string_view whole, std::string_view part) {
  fail(Kind::usage, cat("EVERGRAD_EMULATED=", whole, ": '", part,
                        "' is not understood; write workers=N, schedule=round-robin|random:SEED, "
                        "streams=eager|lazy:SEED, shared=KIB, fastest=KERNEL, library=CALL"));
}

std::uint64_t number(std::string_view text, std::string_view whole) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc{} && end == text.data() + text.size() && !text.empty(), Kind::usage,
        [&] { return cat("EVERGRAD_EMULATED=", whole, ": '", text, "' is not a whole number"); });
  return value;
}

void read_part(Settings& s, std::string_view part, std::string_view whole) {
  const std::size_t equals = part.find('=');
  if (equals == std::string_view::npos) refuse(whole, part);
  const std::string_view name = part.substr(0, equals), value = part.substr(equals + 1);
  const std::size_t colon = value.find(':');
  const std::string_view kind = value.substr(0, colon);
  const bool seeded = kind == "random" || kind == "lazy";
  if (colon != std::string_view::npos && !seeded) refuse(whole, part);
  const std::uint64_t seed = colon == std::string_view::npos ? 0 : number(value.substr(colon + 1), whole);
  if (name == "workers") {
    const std::uint64_t workers = number(value, whole);
    check(workers >= 1 && workers <= 1024, Kind::usage,
          [&] { return cat("EVERGRAD_EMULATED=", whole, ": workers must be between 1 and 1024, not ", workers); });
    s.workers = int(workers);
  } else if (name == "shared") {
    const std::uint64_t kib = number(value, whole);
    check(kib >= 48 && kib <= 227, Kind::usage,
          [&] { return cat("EVERGRAD_EMULATED=", whole, ": shared must be between 48 and 227 KiB, not ", kib); });
    s.shared_bytes = std::size_t(kib) * 1024;
  } else if (name == "fastest" && !value.empty()) {
    s.fastest = value;
  } else if (name == "library") {
    s.library = number(value, whole);
  } else if (name == "schedule" && (kind == "round-robin" || kind == "random")) {
    s.schedule = {kind == "random", seed};
  } else if (name == "streams" && (kind == "eager" || kind == "lazy")) {
    s.lazy = kind == "lazy", s.stream_seed = seed;
  } else {
    refuse(whole, part);
  }
}

}  // namespace

Settings parse_settings(std::string_view text) {
  Settings s;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t comma = rest.find(',');
    read_part(s, rest.substr(0, comma), text);
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
  }
  return s;
}

Settings& settings() {
  static Settings s = [] {
    const char* const text = std::getenv("EVERGRAD_EMULATED");
    return parse_settings(text ? text : "");
  }();
  return s;
}

}  // namespace eg::emulated
