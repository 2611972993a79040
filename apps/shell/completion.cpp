// apps/shell/completion.cpp - the command line as completion functions for bash and zsh. Both complete commands, flags,
// the words that a flag takes (method and recipe names among them), and files everywhere else.
#include <algorithm>
#include <functional>

#include "apps/shell/command_line.h"

namespace eg {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& w : words) out += (out.empty() ? "" : " ") + w;
  return out;
}

std::string last_word(const std::string& path) { return path.substr(path.rfind(' ') + 1); }

void each_command(const Subcommand& c, const std::function<void(const Subcommand&)>& body) {
  body(c);
  for (const Subcommand& sub : c.commands) each_command(sub, body);
}

std::string replaced(std::string text, char what, const std::string& by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, 1, by);
  return text;
}

/// A description inside [...] in single quotes, as zsh's _arguments reads it: one line, specials escaped.
std::string zsh_text(std::string text) {
  text = replaced(replaced(replaced(replaced(text, '\n', " "), '[', "("), ']', ")"), '\'', "'\\''");
  return replaced(text, ':', "\\:");
}

/// One argument of _arguments: '--gelu=[Exact GELU, or ...]:TEXT:(erf tanh)'. The sign says how the value may follow: in
/// the next word, or behind "=" (of a short flag: or directly).
std::string zsh_flag(const Flag& f) {
  std::string take;
  if (!f.value.empty()) {
    take = ":" + zsh_text(f.value) + ":";
    if (f.choices.empty())
      take += "_files";
    else
      take += f.list ? "_evergrad_list - " + joined(f.choices) : "(" + joined(f.choices) + ")";
  }
  if (f.names.empty()) return "    '" + take + "' \\\n";
  std::string out;
  for (const std::string& name : f.names) {
    const char* sign = f.value.empty() ? "" : name.rfind("--", 0) == 0 ? "=" : "+";
    out += "    '" + name + sign + "[" + zsh_text(f.help) + "]" + take + "' \\\n";
  }
  return out;
}

std::string zsh_function(const std::string& path) { return "_" + replaced(path, ' ', "_"); }

}  // namespace

std::string bash_completion(const Subcommand& root) {
  std::string paths, values, words;
  each_command(root, [&](const Subcommand& c) {
    if (c.path != root.path) paths += (paths.empty() ? "'" : "|'") + c.path + "'";
    std::vector<std::string> all;
    for (const Subcommand& sub : c.commands) all.push_back(last_word(sub.path));
    std::string take_files;
    for (const Flag& f : c.flags) {
      all.insert(all.end(), f.names.begin(), f.names.end());
      if (f.names.empty()) {  // an argument
        all.insert(all.end(), f.choices.begin(), f.choices.end());
        continue;
      }
      if (f.value.empty()) continue;
      const std::string at = "'" + c.path + " " + f.names.back() + "'";
      if (f.choices.empty())
        take_files += (take_files.empty() ? "    " : "|") + at;
      else
        values += "    " + at + ") " + (f.list ? "list" : "words") + "='" + joined(f.choices) + "' ;;\n";
    }
    if (!take_files.empty()) values += take_files + ") return ;;\n";
    words += "    '" + c.path + "') words='" + joined(all) + "' ;;\n";
  });
  return "# Completion of evergrad for bash, made by 'evergrad completion bash'. Where it offers nothing, files are "
         "completed.\n"
         "_evergrad() {\n"
         "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} path=evergrad words= list= i\n"
         "  COMPREPLY=()\n"
         "  for ((i = 1; i < COMP_CWORD; ++i)); do\n"
         "    case \"$path ${COMP_WORDS[i]}\" in\n      " +
         paths + ") path=\"$path ${COMP_WORDS[i]}\" ;;\n    esac\n  done\n" + "  case \"$path $before\" in\n" + values +
         "  esac\n" +
         "  if [ -n \"$list\" ]; then  # several names with commas and pluses: the last one\n"
         "    COMPREPLY=($(compgen -P \"${word%\"${word##*[,+]}\"}\" -W \"$list\" -- \"${word##*[,+]}\"))\n"
         "    return\n"
         "  fi\n"
         "  [ -n \"$words\" ] || case \"$path\" in\n" +
         words + "  esac\n" +
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
         "}\n"
         "complete -o default -F _evergrad evergrad\n";
}

std::string zsh_completion(const Subcommand& root) {
  std::string out =
      "#compdef evergrad\n"
      "# Completion of evergrad for zsh, made by 'evergrad completion zsh': save it as _evergrad in a folder of "
      "$fpath.\n"
      "\n"
      "# Several names with commas and pluses: the last one.\n"
      "_evergrad_list() { compset -P '*[,+]'; compadd -S '' \"$@\"; }\n";
  each_command(root, [&](const Subcommand& c) {
    out += "\n" + zsh_function(c.path) + "() {\n";
    if (!c.commands.empty()) out += "  local state line\n";
    out += c.commands.empty() ? "  _arguments \\\n" : "  _arguments -C \\\n";
    for (const Flag& f : c.flags) out += zsh_flag(f);
    if (c.commands.empty()) {
      out += "    && return 0\n}\n";
      return;
    }
    out += "    '1: :->command' '*:: :->rest' && return 0\n  case $state in\n    command)\n      local -a commands=(\n";
    for (const Subcommand& sub : c.commands)
      out += "        '" + last_word(sub.path) + ":" + zsh_text(sub.summary) + "'\n";
    out += "      )\n      _describe command commands ;;\n    rest)\n      case $line[1] in\n";
    for (const Subcommand& sub : c.commands)
      out += "        " + last_word(sub.path) + ") " + zsh_function(sub.path) + " ;;\n";
    out += "      esac ;;\n  esac\n}\n";
  });
  return out + "\n_evergrad \"$@\"\n";
}

}  // namespace eg
