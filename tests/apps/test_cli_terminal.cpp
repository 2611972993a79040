// tests/apps/test_cli_terminal.cpp - what a person sees while a command runs: `evergrad` on a pseudo-terminal.
#include <pty.h>

#include <array>

#include "tests/apps/command.h"

using namespace eg;

namespace {

/// Everything that the command wrote to its terminal, 100 columns wide, and its exit code.
Ended on_terminal(const Args& args) {
  const Args all = Args{EVERGRAD_BINARY} + args;
  std::vector<char*> argv;
  for (const std::string& a : all) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const winsize size{24, 100, 0, 0};
  int terminal = -1;
  const pid_t pid = ::forkpty(&terminal, nullptr, nullptr, &size);
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  Ended e;
  std::array<char, 4096> buffer;
  for (ssize_t n; (n = ::read(terminal, buffer.data(), buffer.size())) > 0;)
    e.out.append(buffer.data(), std::size_t(n));
  ::close(terminal);
  int status = 0;
  ::waitpid(pid, &status, 0);
  e.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return e;
}

/// The screen's lines after all that text: carriage return, line feed and "erase to the end of the line" are obeyed.
std::vector<std::string> screen(const std::string& text) {
  std::vector<std::string> lines(1);
  std::size_t column = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string& line = lines.back();
    if (text[i] == '\r') {
      column = 0;
    } else if (text[i] == '\n') {
      lines.emplace_back();
    } else if (text.compare(i, 3, "\x1b[K") == 0) {
      line.resize(std::min(line.size(), column)), i += 2;
    } else {
      REQUIRE(text[i] != '\x1b');  // nothing else may reach a person's terminal
      line.resize(std::max(line.size(), column + 1), ' ');
      line[column++] = text[i];
    }
  }
  return lines;
}

}  // namespace

TEST_CASE("progress: on a terminal one line is rewritten in place, notes stay, and nothing of it is left at the end") {
  const TemporaryFolder folder;
  const Ended e = on_terminal(tiny_continual(folder / "run") + Args{"--epochs", "40"});
  INFO(e.out);
  REQUIRE(e.code == 0);
  std::size_t live = 0, longest = 0;
  for (std::size_t at = 0; (at = e.out.find('\r', at)) != std::string::npos; ++at) {
    const std::string line = e.out.substr(at + 1, e.out.find_first_of("\r\n\x1b", at + 1) - at - 1);
    longest = std::max(longest, line.size());
    if (!contains(line, "adamw, seed 1 | task ")) continue;
    ++live;
    for (const char* part : {"/3 | epoch ", "/40 | loss ", "| acc ", " images/s"}) CHECK(contains(line, part));
  }
  CHECK(live >= 3);      // every task shows at once
  CHECK(longest < 100);  // a line that wraps would stay on the screen
  int notes = 0;
  for (const std::string& line : screen(e.out)) {
    CHECK_FALSE(contains(line, "| epoch "));
    notes += contains(line, "adamw, seed 1, task ");
  }
  CHECK(notes == 3);
  CHECK(contains(e.out, "AAT %"));
}

TEST_CASE("progress: without a terminal no control sequence is written") {
  const TemporaryFolder folder;
  const Ended e = evergrad(tiny_continual(folder / "run"));
  REQUIRE(e.code == 0);
  CHECK_FALSE(contains(e.all(), "\x1b"));
  CHECK_FALSE(contains(e.all(), "\r"));
}
