// optim/options_reader.h - reads the options of a method ("adamw:beta2=0.99:eps=1e-6"), each with its default and
// range.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>

#include "optim/optimizer.h"

namespace eg {

/// Asks for one option after the other; finish() then rejects what nobody asked for, with the list of what exists.
/// Every member throws Error{usage} that names the method, the option, the text given and what is allowed.
class OptionReader {
 public:
  explicit OptionReader(const MethodSpec& spec) : spec_(spec) {}
  std::string text(const std::string& key, const std::string& otherwise);
  /// A finite number in [low, high].
  double number(const std::string& key, double otherwise, double low, double high);
  std::int64_t integer(const std::string& key, std::int64_t otherwise, std::int64_t low, std::int64_t high);
  /// Present alone or =true/1/yes: true; =false/0/no: false.
  bool flag(const std::string& key, bool otherwise);
  /// Index of the given word in `words`.
  int choice(const std::string& key, std::initializer_list<const char*> words, int otherwise);
  void finish() const;

 private:
  const std::string* find(const std::string& key);
  const MethodSpec& spec_;
  std::set<std::string> known_;
};

}  // namespace eg
