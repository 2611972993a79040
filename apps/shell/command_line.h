// apps/shell/command_line.h - the whole command line as plain data, read from the parser itself: what manual pages and
// shell completion are made of, so that neither can lag behind the flags.
#pragma once
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace eg {

struct Flag {
  std::vector<std::string> names;    // "--lr"; empty for an argument without a flag
  std::string value;                 // "FLOAT in [0 - 1]"; empty for a switch
  std::vector<std::string> choices;  // the words that are allowed, where there are few
  std::string help, otherwise;       // otherwise: the default, or nothing
  std::string group;
  bool list = false;  // several choices, joined by commas or pluses
};

struct Subcommand {
  std::string path;           // "evergrad data fetch"
  std::string summary, help;  // a line; everything that --help says above the flags
  std::vector<Flag> flags;    // in the order of --help
  std::vector<Subcommand> commands;
};

/// The commands that `app` has now, hidden ones and hidden flags left out.
Subcommand command_line(const CLI::App& app);

/// Every page as {"evergrad-continual.1", text in troff's man macros}.
std::vector<std::pair<std::string, std::string>> manual_pages(const Subcommand& root, const std::string& version);

std::string bash_completion(const Subcommand& root);
std::string zsh_completion(const Subcommand& root);

}  // namespace eg
