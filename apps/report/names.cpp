// apps/report/names.cpp - see names.h.
#include "apps/report/names.h"

#include <map>
#include <set>

#include "engine/error.h"
#include "optim/optimizer.h"

namespace eg::report {
namespace {

using Setting = std::pair<std::size_t, std::string>;  // of which rule of the method, and its text

/// A method's rules, the base first, and their settings as text.
struct Rules {
  std::vector<std::string> names;
  std::vector<std::vector<std::string>> settings;
};

Rules rules_of(const std::string& method) {
  Rules rules;
  const auto add = [&](const MethodSpec& part) {
    rules.names.push_back(part.name);
    rules.settings.emplace_back();
    for (const auto& [option, value] : part.options)
      rules.settings.back().push_back(value.empty() ? option : cat(option, "=", value));
  };
  try {
    const MethodSpec spec = parse_method(method);
    if (method.starts_with(spec.name)) add(spec);  // "nap" stands on AdamW without a word
    for (const MethodSpec& part : spec.with) add(part);
  } catch (const Error&) {
    rules = {{method}, {{}}};  // of another version of evergrad: still a name
  }
  return rules;
}

template <class Keep>
std::string joined(const Rules& rules, Keep keep) {
  std::string text;
  for (std::size_t r = 0; r < rules.names.size(); ++r) {
    text += (r ? "+" : "") + rules.names[r];
    for (const std::string& setting : rules.settings[r])
      if (keep(Setting{r, setting})) text += ":" + setting;
  }
  return text;
}

}  // namespace

std::vector<std::string> short_names(const std::vector<std::string>& methods) {
  std::map<std::string, std::set<std::string>> namesakes;  // name without settings -> texts
  const auto bare = [](const Rules& rules) { return joined(rules, [](const Setting&) { return false; }); };
  for (const std::string& m : methods) namesakes[bare(rules_of(m))].insert(m);

  std::map<std::string, std::map<Setting, std::size_t>> shared;  // how many of the namesakes have a setting
  for (const auto& [name, texts] : namesakes)
    for (const std::string& m : texts) {
      const Rules rules = rules_of(m);
      for (std::size_t r = 0; r < rules.settings.size(); ++r)
        for (const std::string& setting : rules.settings[r]) ++shared[name][{r, setting}];
    }

  std::vector<std::string> names;
  for (const std::string& m : methods) {
    const Rules rules = rules_of(m);
    const std::string name = bare(rules);
    names.push_back(joined(rules, [&](const Setting& s) { return shared[name][s] < namesakes[name].size(); }));
  }
  // Texts that differ in nothing but the order of their settings, say.
  for (std::size_t i = 0; i < methods.size(); ++i)
    for (std::size_t j = 0; j < methods.size(); ++j)
      if (names[i] == names[j] && methods[i] != methods[j]) return methods;
  return names;
}

}  // namespace eg::report
