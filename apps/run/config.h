// apps/run/config.h - the fully resolved configuration of a run: what config.toml holds.
//
// Keys are the long names of flags without the dashes, in the order in which they were set. Values are what TOML has:
// text, whole numbers, numbers, true or false, and lists of these. A dot in a key opens a table, as in TOML.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace eg {

using ConfigScalar = std::variant<bool, std::int64_t, double, std::string>;
using ConfigValue = std::variant<ConfigScalar, std::vector<ConfigScalar>>;

/// As it stands in the file: text in quotes, numbers so that they read back as the same double.
std::string to_toml(const ConfigValue& value);

class Config {
 public:
  /// Adds the key at the end or replaces its value in place. Throws Error{usage} for a key with anything but letters,
  /// digits, '-', '_' and single dots between them.
  void set(std::string_view key, ConfigValue value);
  void set(std::string_view key, const char* value) { set(key, ConfigScalar(std::string(value))); }
  void set(std::string_view key, const std::string& value) { set(key, ConfigScalar(value)); }
  void set(std::string_view key, bool value) { set(key, ConfigScalar(value)); }
  void set(std::string_view key, int value) { set(key, ConfigScalar(std::int64_t(value))); }
  void set(std::string_view key, std::int64_t value) { set(key, ConfigScalar(value)); }
  void set(std::string_view key, double value) { set(key, ConfigScalar(value)); }
  void set(std::string_view key, const std::vector<std::string>& values);
  void set(std::string_view key, const std::vector<std::int64_t>& values);
  void set(std::string_view key, const std::vector<int>& values);
  void set(std::string_view key, const std::vector<double>& values);

  /// nullptr when absent.
  const ConfigValue* find(std::string_view key) const;
  /// Values by type; throw Error{usage} naming the key when it is absent or of another type. A whole number is a
  /// number.
  std::string text(std::string_view key) const;
  std::int64_t whole(std::string_view key) const;
  double number(std::string_view key) const;
  bool flag(std::string_view key) const;
  const std::vector<std::pair<std::string, ConfigValue>>& entries() const { return entries_; }

  /// One "key = value" per line, in order.
  std::string toml() const;
  /// Reads TOML; `source` is the name used in messages. Tables become dotted keys, the order of the text is kept.
  /// Throws Error{format} with line and column.
  static Config from_toml(std::string_view text, const std::string& source);
  static Config read(const std::filesystem::path& path);
  /// Atomic (engine/file.h).
  void write(const std::filesystem::path& path) const;

 private:
  std::vector<std::pair<std::string, ConfigValue>> entries_;
};

struct ConfigDifference {
  std::string key;
  std::optional<std::string> before, now;  // as TOML; absent: the key does not occur there
};
/// The first key, in the order of `before` and then of `now`, whose values differ. Numbers are compared by value, so
/// that 1 equals 1.0. Keys in `ignore` may differ.
std::optional<ConfigDifference> first_difference(const Config& before, const Config& now,
                                                 const std::set<std::string, std::less<>>& ignore = {});
/// Throws Error{usage} that names the key, both values and the remedy when `now` is not the configuration of the run in
/// `folder`.
void check_same_config(const Config& before, const Config& now, const std::filesystem::path& folder,
                       const std::set<std::string, std::less<>>& ignore = {});

}  // namespace eg
