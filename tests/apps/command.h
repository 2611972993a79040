// tests/apps/command.h - runs a program as a person would: its own process, its own arguments, what it printed, how it
// ended. Output goes to unnamed files, so no amount of it can block the program.
#pragma once
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/file.h"
#include "tests/engine/temporary_folder.h"

namespace eg {

using Args = std::vector<std::string>;
inline Args operator+(Args a, const Args& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Ended {
  int code = -1;      // exit code; 128 + n when signal n ended it, as a shell says
  int signal = 0;     // the signal that ended it, or 0
  bool late = false;  // it did not end in time and was killed
  std::string out, err;
  std::string all() const { return out + err; }
};

/// A program that runs now. Dying kills it.
class Command {
 public:
  explicit Command(const Args& args) : out_(unnamed_file()), err_(unnamed_file()) {
    std::vector<char*> argv;
    for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ > 0) return;
    ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
    ::dup2(out_.get(), STDOUT_FILENO);
    ::dup2(err_.get(), STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ~Command() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  void signal(int number) const { ::kill(pid_, number); }
  pid_t pid() const { return pid_; }
  /// True when it ended within that time; its state is kept for wait().
  bool ended_within(std::chrono::microseconds time) {
    const auto until = std::chrono::steady_clock::now() + time;
    for (;;) {
      siginfo_t info{};
      if (::waitid(P_PID, id_t(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_) return true;
      if (std::chrono::steady_clock::now() >= until) return false;
      ::usleep(500);
    }
  }
  /// Waits until it ends; after `limit` it is killed, and the test fails.
  Ended wait(std::chrono::seconds limit = std::chrono::seconds(120)) {
    Ended e;
    e.late = !ended_within(limit);
    if (e.late) signal(SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    e.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    e.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + e.signal;
    e.out = text_of(out_), e.err = text_of(err_);
    CHECK_MESSAGE(!e.late, cat("still running after ", limit.count(), " s\n", e.all()));
    return e;
  }

 private:
  static FileHandle unnamed_file() {
    std::string name = (std::filesystem::temp_directory_path() / "evergrad_output_XXXXXX").string();
    FileHandle file(::mkostemp(name.data(), O_CLOEXEC));
    REQUIRE(bool(file));
    ::unlink(name.c_str());
    return file;
  }
  static std::string text_of(const FileHandle& file) {
    std::string text(std::size_t(::lseek(file.get(), 0, SEEK_END)), '\0');
    const ssize_t n = ::pread(file.get(), text.data(), text.size(), 0);
    CHECK(n == ssize_t(text.size()));
    return text;
  }
  FileHandle out_, err_;
  pid_t pid_ = -1;
};

/// `evergrad` with these arguments, from start to end.
inline Ended evergrad(const Args& args) { return Command(Args{EVERGRAD_BINARY} + args).wait(); }

/// A stream and a network so small that a run takes some hundredths of a second. Later flags override these.
inline Args tiny_model() {
  return {"--dim", "16", "--depth", "1", "--heads", "1", "--image-size", "8", "--patch", "4", "--threads", "1"};
}
inline Args tiny_continual(const std::filesystem::path& out) {
  return Args{"continual", "--tasks",       "3",  "--classes-per-task", "2",     "--epochs",
              "2",         "--batch",       "8",  "--methods",          "adamw", "--seeds",
              "1",         "--train-limit", "24", "--test-limit",       "20",    "--out",
              out.string()} +
         tiny_model();
}
inline Args tiny_train(const std::filesystem::path& out) {
  return Args{"train",        "--epochs", "2",         "--batch", "8",     "--train-limit", "40",
              "--test-limit", "20",       "--classes", "3",       "--out", out.string()} +
         tiny_model();
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
/// The command ended with that code and its standard error holds every part.
inline void check_refused(const Ended& e, int code, const std::vector<std::string>& parts) {
  INFO(e.all());
  CHECK(e.code == code);
  CHECK(contains(e.err, "evergrad: "));
  for (const std::string& part : parts) CHECK_MESSAGE(contains(e.err, part), "expected in the message: ", part);
}

inline nlohmann::json json_of(const std::filesystem::path& file) { return nlohmann::json::parse(read_file(file)); }
/// Without the contents in the message when they differ.
inline bool same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  return read_file(a) == read_file(b);
}
/// The numbers of a run that must be equal bit for bit, whatever interrupted it: method, seed, accuracies, divergence.
inline nlohmann::json outcome(const std::filesystem::path& folder) {
  const nlohmann::json summary = json_of(folder / "summary.json");
  nlohmann::json all = nlohmann::json::array();
  REQUIRE(summary.at("results").size() > 0);
  for (const auto& r : summary.at("results"))
    all.push_back({r.at("method"), r.at("seed"), r.at("task_accuracy"), r.at("diverged"), r.at("skipped_steps")});
  return all;
}

/// How often a test with random moments repeats: EVERGRAD_SLOW_TESTS asks for all of it, EVERGRAD_SHORT_TESTS (builds
/// with sanitizers) for a sample.
inline int repetitions(int few, int usual, int many) {
  const auto set = [](const char* name) { return ::getenv(name) != nullptr && *::getenv(name) != '\0'; };
  return set("EVERGRAD_SLOW_TESTS") ? many : set("EVERGRAD_SHORT_TESTS") ? few : usual;
}

/// Starts the command (which must say --resume) and kills it at a random moment, again and again until so many kills
/// have struck. A run that ends before its kill is handed to `check` and begins anew in an empty folder.
template <class F>
void kill_at_random_moments(const Args& again, const std::filesystem::path& folder, int kills, int most_ms, F&& check) {
  std::minstd_rand random(7);
  int finished = 0;
  for (int struck = 0; struck < kills;) {
    Command c(Args{EVERGRAD_BINARY} + again);
    if (c.ended_within(std::chrono::microseconds(1000 * (15 + std::int64_t(random()) % most_ms)))) {
      REQUIRE(++finished < 20 * kills);  // kills never strike: the run is too short for this machine
      const Ended e = c.wait();
      INFO(e.all());
      REQUIRE(e.code == 0);
      check();
      std::filesystem::remove_all(folder);
      continue;
    }
    c.signal(SIGKILL);
    struck += c.wait().signal == SIGKILL;
  }
  const Ended e = evergrad(again);
  INFO(e.all());
  REQUIRE(e.code == 0);
  check();
}

}  // namespace eg
