// apps/report/names.cpp - see names.h.
#include "apps/report/names.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

namespace eg::report {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

/// "adamw:lr=1e-4+nap": per rule its name, then its settings.
std::vector<std::vector<std::string>> rules_of(const std::string& method) {
  std::vector<std::vector<std::string>> rules;
  for (const std::string& rule : split(method, '+'))
    rules.push_back(rule.empty() ? std::vector<std::string>{""} : split(rule, ':'));
  return rules;
}

/// The method with those settings that keep(rule, setting) wants.
template <class Keep>
std::string joined(const std::string& method, Keep keep) {
  std::string text;
  const auto rules = rules_of(method);
  for (std::size_t r = 0; r < rules.size(); ++r) {
    text += (r ? "+" : "") + rules[r][0];
    for (std::size_t s = 1; s < rules[r].size(); ++s)
      if (keep(r, rules[r][s])) text += ":" + rules[r][s];
  }
  return text;
}

}  // namespace

std::vector<std::string> short_names(const std::vector<std::string>& methods) {
  using Setting = std::pair<std::size_t, std::string>;
  std::map<std::string, std::set<std::string>> namesakes;  // name without settings -> texts
  const auto bare = [](const std::string& m) {
    return joined(m, [](std::size_t, const std::string&) { return false; });
  };
  for (const std::string& m : methods) namesakes[bare(m)].insert(m);

  std::map<std::string, std::map<Setting, std::size_t>> shared;  // how many of the namesakes have a setting
  for (const auto& [name, texts] : namesakes)
    for (const std::string& m : texts) {
      const auto rules = rules_of(m);
      std::set<Setting> own;
      for (std::size_t r = 0; r < rules.size(); ++r)
        for (std::size_t s = 1; s < rules[r].size(); ++s) own.insert({r, rules[r][s]});
      for (const Setting& s : own) ++shared[name][s];
    }

  std::vector<std::string> names;
  for (const std::string& m : methods) {
    const std::string name = bare(m);
    names.push_back(joined(m, [&](std::size_t rule, const std::string& setting) {
      return shared[name][{rule, setting}] < namesakes[name].size();
    }));
  }
  // Texts that differ in nothing but the order of their settings, say.
  for (std::size_t i = 0; i < methods.size(); ++i)
    for (std::size_t j = 0; j < methods.size(); ++j)
      if (names[i] == names[j] && methods[i] != methods[j]) return methods;
  return names;
}

}  // namespace eg::report
