// tests/apps/test_run_folder.cpp - who may write where.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/run/run_folder.h"
#include "apps/run/signals.h"
#include "engine/error.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A child process that holds the folder until it is killed.
class Holder {
 public:
  explicit Holder(const fs::path& folder) {
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      try {
        const RunFolder run = RunFolder::open(folder, true);
        if (::write(ready[1], "1", 1) == 1) ::pause();
      } catch (...) {}
      ::_exit(0);
    }
    ::close(ready[1]);
    char byte = 0;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    ::close(ready[0]);
  }
  ~Holder() { stop(); }
  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};
}  // namespace

TEST_CASE("run folder: a new, an empty and a nested folder are taken, with and without resume") {
  const TemporaryFolder folder;
  CHECK_FALSE(RunFolder::open(folder / "a" / "b", false).continues());
  CHECK(fs::is_directory(folder / "a" / "b"));
  CHECK_FALSE(RunFolder::open(folder / "a" / "b", false).continues());  // the lock file alone does not fill it
  fs::create_directory(folder / "empty");
  CHECK_FALSE(RunFolder::open(folder / "empty", true).continues());
  CHECK_FALSE(RunFolder::open(folder / "new", true).continues());
}

TEST_CASE("run folder: an existing run needs resume, and is left as it was when refused") {
  const TemporaryFolder folder;
  const fs::path path = folder / "run";
  {
    const RunFolder run = RunFolder::open(path, false);
    write_file(run.config(), "a = 1\n");
    write_file(run.summary(), "{}");
  }
  fs::remove(path / ".lock");
  const std::string text = error_text(Kind::usage, [&] { RunFolder::open(path, false); });
  CHECK(contains(text, "--resume"));
  CHECK(contains(text, path.string()));
  CHECK_FALSE(fs::exists(path / ".lock"));
  CHECK(RunFolder::open(path, true).continues());  // also a finished run
}

TEST_CASE("run folder: resume does not adopt a folder that is not a run") {
  const TemporaryFolder folder;
  std::ofstream(folder / "thesis.tex") << "x";
  const std::string text = error_text(Kind::usage, [&] { RunFolder::open(folder.path(), true); });
  CHECK(contains(text, "thesis.tex"));
  CHECK(contains(text, "config.toml"));
  CHECK_FALSE(fs::exists(folder / ".lock"));
}

TEST_CASE("run folder: what a killed process left half written does not count and is removed") {
  const TemporaryFolder folder;
  std::ofstream(folder / "config.toml.999.tmp") << "x";
  CHECK_FALSE(RunFolder::open(folder.path(), false).continues());
  CHECK_FALSE(fs::exists(folder / "config.toml.999.tmp"));
}

TEST_CASE("run folder: a second live process is refused with pid and host; after kill -9 the folder is free") {
  const TemporaryFolder folder;
  Holder holder(folder.path());
  write_file(folder / "config.toml", "a = 1\n");
  for (const bool resume : {false, true}) {
    const std::string text = error_text(Kind::usage, [&] { RunFolder::open(folder.path(), resume); });
    CHECK(contains(text, "another live process"));
    CHECK(contains(text, cat("pid ", holder.pid(), " on host ")));
  }
  holder.stop();
  CHECK(RunFolder::open(folder.path(), true).continues());
}

TEST_CASE("run folder: two handles in one process exclude each other too") {
  const TemporaryFolder folder;
  const RunFolder first = RunFolder::open(folder.path(), false);
  CHECK(contains(error_text(Kind::usage, [&] { RunFolder::open(folder.path(), true); }), "another live process"));
}

TEST_CASE("run folder: of many processes that start at once exactly one gets the folder") {
  const TemporaryFolder folder;
  int gate[2];
  REQUIRE(::pipe(gate) == 0);
  std::vector<pid_t> children;
  for (int i = 0; i < 8; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      char byte;
      ::close(gate[1]);
      if (::read(gate[0], &byte, 1) < 0) ::_exit(3);
      try {
        const RunFolder run = RunFolder::open(folder / "run", false);
        write_file(run.config(), "a = 1\n");
        ::usleep(500'000);
        ::_exit(1);
      } catch (const Error&) { ::_exit(0); }
    }
    children.push_back(pid);
  }
  ::close(gate[0]);
  ::close(gate[1]);  // end of file lets all go
  int winners = 0;
  for (const pid_t pid : children) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    winners += WIFEXITED(status) ? WEXITSTATUS(status) : 100;
  }
  CHECK(winners == 1);
}

TEST_CASE("run folder: a file, an empty name, a read-only mount and a path below a file are clear errors") {
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "x";
  CHECK(contains(error_text(Kind::usage, [&] { RunFolder::open(folder / "file", true); }), "not a folder"));
  error_text(Kind::usage, [&] { RunFolder::open("", false); });
  CHECK_THROWS_AS(RunFolder::open(folder / "file" / "x", false), Error);
  const MountedFolder disk("64k");
  if (!disk) return;
  fs::create_directory(disk.path() / "there");
  disk.make_read_only();
  for (const char* name : {"there", "not_there"})
    CHECK(contains(error_text(Kind::io, [&] { RunFolder::open(disk.path() / name, false); }), "Read-only file system"));
}

TEST_CASE("write_json: is indented, atomic, and survives numbers and text that JSON cannot hold") {
  const TemporaryFolder folder;
  write_json(folder / "s.json", {{"aat", 0.5}, {"bad", NAN}, {"name", "\xff"}});
  const auto back = nlohmann::json::parse(read_file(folder / "s.json"));
  CHECK(back["aat"] == 0.5);
  CHECK(back["bad"].is_null());
  CHECK(contains(read_file(folder / "s.json"), "\n  \"aat\": 0.5"));
}

TEST_CASE("signals: the first sets the flag with its exit code") {
  catch_stop_signals();
  CHECK(stop_signal() == 0);
  CHECK(stop_exit_code() == 0);
  ::raise(SIGINT);
  CHECK(stop_exit_code() == 130);
  clear_stop_signal();
  ::raise(SIGTERM);
  CHECK(stop_signal() == SIGTERM);
  CHECK(stop_exit_code() == 143);
  clear_stop_signal();
  ::raise(SIGUSR1);  // Slurm's preemption
  CHECK(stop_exit_code() == 138);
  clear_stop_signal();
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) ::signal(signal, SIG_DFL);
}

TEST_CASE("signals: a second SIGINT ends the process at once with 130, a second SIGTERM does not") {
  const auto status_after = [](int second) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      catch_stop_signals();
      ::raise(SIGTERM);
      ::raise(second);
      ::_exit(7);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  CHECK(status_after(SIGINT) == 130);
  CHECK(status_after(SIGTERM) == 7);
}
