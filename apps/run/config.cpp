// apps/run/config.cpp - configurations as TOML, and what differs between two of them.
#include "apps/run/config.h"

#include <toml++/toml.h>
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

std::string toml_quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      constexpr const char* kHex = "0123456789ABCDEF";
      ((out += "\\u00") += kHex[byte >> 4]) += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  std::string text(buffer.data(), end.ptr);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";  // TOML tells 1 from 1.0
  return text;
}

std::string scalar_text(const ConfigScalar& value) {
  struct Visitor {
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const { return number_text(v); }
    std::string operator()(const std::string& v) const { return toml_quote(v); }
  };
  return std::visit(Visitor{}, value);
}

bool same(const ConfigScalar& a, const ConfigScalar& b) {
  const auto number = [](const ConfigScalar& v) -> std::optional<double> {
    if (const auto* d = std::get_if<double>(&v)) return *d;
    if (const auto* i = std::get_if<std::int64_t>(&v)) return double(*i);
    return std::nullopt;
  };
  if (a.index() == b.index() && a == b) return true;
  const auto x = number(a), y = number(b);
  return a.index() != b.index() && x && y && *x == *y;
}

bool same(const ConfigValue& a, const ConfigValue& b) {
  if (a.index() != b.index()) return false;
  if (const auto* scalar = std::get_if<ConfigScalar>(&a)) return same(*scalar, std::get<ConfigScalar>(b));
  const auto &x = std::get<std::vector<ConfigScalar>>(a), &y = std::get<std::vector<ConfigScalar>>(b);
  return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const auto& p, const auto& q) { return same(p, q); });
}

std::optional<ConfigScalar> scalar_of(const toml::node& node) {
  if (const auto* v = node.as_boolean()) return ConfigScalar(v->get());
  if (const auto* v = node.as_integer()) return ConfigScalar(v->get());
  if (const auto* v = node.as_floating_point()) return ConfigScalar(v->get());
  if (const auto* v = node.as_string()) return ConfigScalar(v->get());
  return std::nullopt;
}

struct Found {
  toml::source_position at;
  std::string key;
  ConfigValue value;
};

ConfigValue value_of(const toml::node& node, const std::string& key, const std::string& source) {
  if (auto scalar = scalar_of(node)) return *scalar;
  const auto unsupported = [&]() {
    return cat(source, ", line ", node.source().begin.line, ": the value of ", key,
               " is neither text, a number, true or false, nor a list of these");
  };
  const toml::array* array = node.as_array();
  check(array != nullptr, Kind::format, unsupported);
  std::vector<ConfigScalar> list;
  for (const toml::node& item : *array) {
    auto scalar = scalar_of(item);
    check(scalar.has_value(), Kind::format, unsupported);
    list.push_back(std::move(*scalar));
  }
  return list;
}

/// toml++ refuses nesting deeper than its own limit, which bounds this recursion.
void collect(const toml::table& table, const std::string& prefix, const std::string& source, std::vector<Found>* out) {
  for (auto&& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    if (const toml::table* inner = node.as_table()) {
      collect(*inner, name + ".", source, out);
    } else {
      out->push_back({node.source().begin, name, value_of(node, name, source)});
    }
  }
}

template <class T>
std::vector<ConfigScalar> list_of(const std::vector<T>& values) {
  std::vector<ConfigScalar> list;
  for (const T& v : values) {
    if constexpr (std::is_same_v<T, int>) {
      list.emplace_back(std::int64_t(v));
    } else {
      list.emplace_back(v);
    }
  }
  return list;
}

template <class T>
const T& get(const Config& config, std::string_view key, const char* wanted) {
  const ConfigValue* value = config.find(key);
  check(value != nullptr, Kind::usage, [&] { return cat("the configuration lacks the key ", key); });
  const auto* scalar = std::get_if<ConfigScalar>(value);
  const T* typed = scalar ? std::get_if<T>(scalar) : nullptr;
  check(typed != nullptr, Kind::usage, [&] { return cat(key, " = ", to_toml(*value), " should be ", wanted); });
  return *typed;
}

}  // namespace

std::string to_toml(const ConfigValue& value) {
  if (const auto* scalar = std::get_if<ConfigScalar>(&value)) return scalar_text(*scalar);
  std::string text = "[";
  for (const ConfigScalar& item : std::get<std::vector<ConfigScalar>>(value))
    (text += text.size() > 1 ? ", " : "") += scalar_text(item);
  return text + "]";
}

void Config::set(std::string_view key, ConfigValue value) {
  bool good = !key.empty() && key.front() != '.' && key.back() != '.' && key.find("..") == std::string_view::npos;
  for (const char c : key) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    good = good && (letter || c == '-' || c == '_' || c == '.');
  }
  check(good, Kind::usage, [&] { return cat("the configuration key '", key, "' is not a plain name"); });
  const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.first == key; });
  if (at != entries_.end()) {
    at->second = std::move(value);
  } else {
    entries_.emplace_back(std::string(key), std::move(value));
  }
}
void Config::set(std::string_view key, const std::vector<std::string>& v) { set(key, ConfigValue(list_of(v))); }
void Config::set(std::string_view key, const std::vector<std::int64_t>& v) { set(key, ConfigValue(list_of(v))); }
void Config::set(std::string_view key, const std::vector<int>& v) { set(key, ConfigValue(list_of(v))); }
void Config::set(std::string_view key, const std::vector<double>& v) { set(key, ConfigValue(list_of(v))); }

const ConfigValue* Config::find(std::string_view key) const {
  const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.first == key; });
  return at == entries_.end() ? nullptr : &at->second;
}

std::string Config::text(std::string_view key) const { return get<std::string>(*this, key, "text"); }
std::int64_t Config::whole(std::string_view key) const { return get<std::int64_t>(*this, key, "a whole number"); }
bool Config::flag(std::string_view key) const { return get<bool>(*this, key, "true or false"); }
double Config::number(std::string_view key) const {
  const ConfigValue* value = find(key);
  const auto* scalar = value ? std::get_if<ConfigScalar>(value) : nullptr;
  if (scalar && std::holds_alternative<std::int64_t>(*scalar)) return double(std::get<std::int64_t>(*scalar));
  return get<double>(*this, key, "a number");
}

std::string Config::toml() const {
  std::string text;
  for (const auto& [key, value] : entries_) text += cat(key, " = ", to_toml(value), '\n');
  return text;
}

Config Config::from_toml(std::string_view text, const std::string& source) {
  std::vector<Found> found;
  try {
    collect(toml::parse(text, source), "", source, &found);
  } catch (const toml::parse_error& e) {
    fail(Kind::format, cat(source, ", line ", e.source().begin.line, ", column ", e.source().begin.column,
                           ": not valid TOML: ", e.description()));
  }
  std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return a.at.line != b.at.line ? a.at.line < b.at.line : a.at.column < b.at.column;
  });
  Config config;
  for (Found& f : found) config.set(f.key, std::move(f.value));
  return config;
}

Config Config::read(const std::filesystem::path& path) {
  return from_toml(read_file(path, std::uint64_t(16) << 20), path.string());
}

void Config::write(const std::filesystem::path& path) const { write_file(path, toml()); }

std::optional<ConfigDifference> first_difference(const Config& before, const Config& now,
                                                 const std::set<std::string, std::less<>>& ignore) {
  for (const auto& [key, value] : before.entries()) {
    if (ignore.count(key)) continue;
    const ConfigValue* other = now.find(key);
    if (!other) return ConfigDifference{key, to_toml(value), std::nullopt};
    if (!same(value, *other)) return ConfigDifference{key, to_toml(value), to_toml(*other)};
  }
  for (const auto& [key, value] : now.entries())
    if (!ignore.count(key) && !before.find(key)) return ConfigDifference{key, std::nullopt, to_toml(value)};
  return std::nullopt;
}

void check_same_config(const Config& before, const Config& now, const std::filesystem::path& folder,
                       const std::set<std::string, std::less<>>& ignore) {
  const auto difference = first_difference(before, now, ignore);
  check(!difference, Kind::usage, [&] {
    return cat("cannot resume the run in ", folder.string(), ": ", difference->key, " was ",
               difference->before.value_or("not set"), " and is now ", difference->now.value_or("not set"),
               "; use the old value, or another --out for a new run");
  });
}

}  // namespace eg
