// apps/shell/command_line.cpp - see command_line.h.
#include "apps/shell/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>

#include "apps/embedded.h"
#include "optim/optimizer.h"

namespace eg {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');) words.push_back(word);
  return words;
}

/// The parser describes what a flag takes as "TEXT:{erf,tanh}" or "INT:INT in [0 - 64]".
void read_type(const std::string& type, Flag& flag) {
  const std::size_t colon = type.find(':');
  flag.value = type.substr(0, colon);
  if (colon == std::string::npos) return;
  const std::string check = type.substr(colon + 1);
  if (check.front() == '{' && check.back() == '}')
    flag.choices = split(check.substr(1, check.size() - 2));
  else
    flag.value = check;
}

void add_names(Flag& flag) {
  const std::string& name = flag.names.empty() ? flag.value : flag.names.back();
  if (name == "--methods" || name == "--method") {
    for (const MethodInfo& m : method_list()) flag.choices.push_back(m.name);
    flag.list = true;
  }
  if (name == "--recipe")  // "recipes/first.toml" is the recipe "first"
    for (const std::string& file : embedded_names("recipes/")) flag.choices.push_back(file.substr(8, file.size() - 13));
}

Flag flag_of(const CLI::Option& option) {
  Flag flag;
  for (const std::string& name : option.get_snames()) flag.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) flag.names.push_back("--" + name);
  if (option.get_items_expected_max() > 0) read_type(option.get_type_name(), flag);
  if (option.get_items_expected_max() > 0 && flag.value.empty()) flag.value = "TEXT";
  if (flag.names.empty()) flag.value = option.get_name(true);  // "FILE"
  flag.help = option.get_description(), flag.otherwise = option.get_default_str(), flag.group = option.get_group();
  add_names(flag);
  return flag;
}

Subcommand read(const CLI::App& app, const std::string& path) {
  Subcommand c;
  c.path = path;
  c.help = app.get_description();
  // The first sentence up to its details, which may go over several lines.
  std::size_t end = c.help.size();
  for (const char* stop : {". ", ".\n", ": ", ":\n", "; ", ";\n", "\n\n", "\nExample"})
    end = std::min(end, c.help.find(stop));
  c.summary = c.help.substr(0, end);
  std::replace(c.summary.begin(), c.summary.end(), '\n', ' ');
  if (!c.summary.empty() && c.summary.back() == '.') c.summary.pop_back();
  for (const CLI::Option* option : app.get_options())
    if (!option->get_group().empty()) c.flags.push_back(flag_of(*option));
  for (const CLI::App* sub : app.get_subcommands(nullptr))
    if (!sub->get_group().empty()) c.commands.push_back(read(*sub, path + ' ' + sub->get_name()));
  return c;
}

}  // namespace

Subcommand command_line(const CLI::App& app) { return read(app, app.get_name()); }

}  // namespace eg
