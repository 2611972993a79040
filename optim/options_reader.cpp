// optim/options_reader.cpp - see options_reader.h.
#include "optim/options_reader.h"

#include <charconv>
#include <cmath>

namespace eg {
namespace {

template <class T>
bool parse_whole(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

const std::string* OptionReader::find(const std::string& key) {
  known_.insert(key);
  const auto at = spec_.options.find(key);
  return at == spec_.options.end() ? nullptr : &at->second;
}

std::string OptionReader::text(const std::string& key, const std::string& otherwise) {
  const std::string* given = find(key);
  return given ? *given : otherwise;
}

double OptionReader::number(const std::string& key, double otherwise, double low, double high) {
  const std::string* given = find(key);
  if (!given) return otherwise;
  double value = 0.0;
  check(parse_whole(*given, value) && std::isfinite(value) && value >= low && value <= high, Kind::usage, [&] {
    return cat(spec_.name, ": ", key, "=", *given, " must be a number from ", low, " to ", high, " (default ",
               otherwise, ")");
  });
  return value;
}

std::int64_t OptionReader::integer(const std::string& key, std::int64_t otherwise, std::int64_t low,
                                   std::int64_t high) {
  const std::string* given = find(key);
  if (!given) return otherwise;
  std::int64_t value = 0;
  check(parse_whole(*given, value) && value >= low && value <= high, Kind::usage, [&] {
    return cat(spec_.name, ": ", key, "=", *given, " must be a whole number from ", low, " to ", high, " (default ",
               otherwise, ")");
  });
  return value;
}

bool OptionReader::flag(const std::string& key, bool otherwise) {
  const std::string* given = find(key);
  if (!given) return otherwise;
  if (given->empty() || *given == "true" || *given == "1" || *given == "yes") return true;
  check(*given == "false" || *given == "0" || *given == "no", Kind::usage,
        [&] { return cat(spec_.name, ": ", key, "=", *given, " must be true or false"); });
  return false;
}

int OptionReader::choice(const std::string& key, std::initializer_list<const char*> words, int otherwise) {
  const std::string* given = find(key);
  if (!given) return otherwise;
  int index = 0;
  std::string list;
  for (const char* word : words) {
    if (*given == word) return index;
    list += cat(index++ ? ", " : "", word);
  }
  fail(Kind::usage, cat(spec_.name, ": ", key, "=", *given, " is not one of ", list));
}

void OptionReader::finish() const {
  for (const auto& [key, value] : spec_.options) {
    if (known_.contains(key)) continue;
    std::string list;
    for (const std::string& k : known_) list += cat(list.empty() ? "" : ", ", k);
    fail(Kind::usage, cat(spec_.name, ": there is no option '", key, "'; it has ", list));
  }
}

}  // namespace eg
