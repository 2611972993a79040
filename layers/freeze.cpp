// layers/freeze.cpp - see freeze.h.
#include "layers/freeze.h"

#include <algorithm>
#include <set>

namespace eg {
namespace {

/// What a model has, in short: names with block numbers replaced by '*', each once.
std::string kinds_of_names(std::span<Param* const> params) {
  std::set<std::string> seen;
  std::string text;
  for (const Param* p : params) {
    std::string name = p->name;
    if (p->block >= 0) name = "blocks.*" + name.substr(name.find('.', 7));
    if (seen.insert(name).second) text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

}  // namespace

bool matches(std::string_view pattern, std::string_view name) {
  // On a mismatch the last '*' takes one character more; an earlier one never has to.
  std::size_t p = 0, n = 0, star = std::string_view::npos, taken = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++, taken = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1, n = ++taken;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

std::vector<std::string> matching(std::span<Param* const> params, std::span<const std::string> patterns) {
  std::vector<std::string> names;
  for (const Param* p : params)
    if (std::any_of(patterns.begin(), patterns.end(), [&](const std::string& q) { return matches(q, p->name); }))
      names.push_back(p->name);
  return names;
}

void freeze(std::span<Param* const> params, std::span<const std::string> patterns) {
  for (const std::string& pattern : patterns) {
    bool found = false;
    for (Param* p : params)
      if (matches(pattern, p->name)) p->frozen = found = true;
    check(found, Kind::usage,
          [&] { return cat("--freeze ", pattern, " fits no parameter; there are ", kinds_of_names(params)); });
  }
  check(std::any_of(params.begin(), params.end(), [](const Param* p) { return !p->frozen; }), Kind::usage, [] {
    return std::string("--freeze leaves nothing to train; leave out at least the head: --freeze 'blocks.*'");
  });
}

}  // namespace eg
