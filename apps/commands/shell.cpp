// apps/commands/shell.cpp - `evergrad completion` and `evergrad man`: what a shell and a manual reader need, made from
// the flags themselves.
#include <iostream>
#include <memory>

#include "apps/command.h"
#include "apps/shell/command_line.h"
#include "engine/build_info.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

int print_completion(const CLI::App& app, const std::string& shell) {
  const Subcommand root = command_line(app);
  std::cout << (shell == "bash" ? bash_completion(root) : zsh_completion(root));
  return 0;
}

int print_manual(const CLI::App& app, const std::string& name, const std::string& out) {
  const std::string wanted = cat(name.empty() ? "evergrad" : "evergrad-", name, ".1");
  std::string known;
  bool found = false;
  for (const auto& [file, text] : manual_pages(command_line(app), build_info().version)) {
    known += cat(known.empty() ? "" : ", ", file.substr(0, file.size() - 2));
    if (!out.empty()) {
      write_file(std::filesystem::path(out) / file, text);
    } else if (file == wanted) {
      std::cout << text;
      found = true;
    }
  }
  check(found || !out.empty(), Kind::usage, [&] { return cat("there is no page '", wanted, "'; known: ", known); });
  return 0;
}

}  // namespace

void add_shell_commands(CLI::App& app, std::function<int()>& run) {
  auto shell = std::make_shared<std::string>();
  auto* completion = app.add_subcommand("completion", "Print what makes bash or zsh complete evergrad's flags");
  completion->description(
      "Prints a completion script for commands, flags, methods, recipes and files. Examples:\n\n"
      "  source <(evergrad completion bash)\n"
      "  evergrad completion zsh > ~/.zfunc/_evergrad     (a folder of $fpath)");
  completion->add_option("shell", *shell, "bash or zsh")->required()->check(CLI::IsMember({"bash", "zsh"}));
  completion->callback([&app, &run, shell] { run = [&app, shell] { return print_completion(app, *shell); }; });

  auto page = std::make_shared<std::string>(), out = std::make_shared<std::string>();
  auto* man = app.add_subcommand("man", "Print a manual page");
  man->description(
      "Prints the manual page of a command, or of all of evergrad, as man reads it. Example:\n\n"
      "  evergrad man continual | man -l -");
  man->add_option("command", *page, "continual, train, data-fetch, ... (nothing: the first page)");
  man->add_option("--out", *out, "Write every page into this folder instead");
  man->callback([&app, &run, page, out] { run = [&app, page, out] { return print_manual(app, *page, *out); }; });
}

}  // namespace eg
