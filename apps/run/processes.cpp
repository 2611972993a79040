// apps/run/processes.cpp - see processes.h.
#include "apps/run/processes.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>

#include "apps/run/signals.h"
#include "engine/error.h"
#include "engine/file.h"

extern char** environ;

namespace eg {
namespace {

constexpr const char* kStarter = "EVERGRAD_STARTER";  // the pid of the process that started this one

pid_t start(const std::filesystem::path& program, const Process& process) {
  ::setenv(kStarter, std::to_string(::getpid()).c_str(), 1);
  std::vector<std::string> words{program.string()};
  words.insert(words.end(), process.arguments.begin(), process.arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, process.log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  // A process group of its own: Ctrl-C reaches this program alone, which then asks its children to save and leave.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  check(error == 0, Kind::io, [&] { return io_message("start a process that logs to", process.log, error); });
  return pid;
}

/// Kills and collects what is still running when it dies.
struct Running {
  std::map<pid_t, std::size_t> by_pid;
  void signal(int number) const {
    for (const auto& [pid, index] : by_pid) ::kill(pid, number);
  }
  ~Running() {
    signal(SIGTERM);
    for (const auto& [pid, index] : by_pid) ::waitpid(pid, nullptr, 0);
  }
};

}  // namespace

bool run_processes(const std::filesystem::path& program, const std::vector<Process>& processes, int limit,
                   const std::function<void(std::size_t, int)>& finished, const std::function<void()>& waiting) {
  std::size_t at = 0;
  const auto next = [&](std::size_t* number, Process* process) {
    if (at == processes.size()) return Work::none;
    *number = at, *process = processes[at++];
    return Work::process;
  };
  return run_work(program, {next, [](std::size_t) { return true; }}, limit, finished, waiting);
}

bool run_work(const std::filesystem::path& program, const WorkSource& source, int limit,
              const std::function<void(std::size_t, int)>& finished, const std::function<void()>& waiting) {
  Running running;
  bool asked = false;
  for (Work more = Work::process;;) {
    if (stop_signal() != 0 && !asked) running.signal(SIGTERM), asked = true;
    more = asked ? Work::none : Work::process;
    while (more == Work::process && running.by_pid.size() < std::size_t(limit)) {
      std::size_t number = 0;
      Process process;
      more = source.next(&number, &process);
      if (more == Work::process) running.by_pid[start(program, process)] = number;
    }
    if (running.by_pid.empty() && more == Work::none) return !asked;
    std::vector<pid_t> gone;
    for (const auto& [pid, number] : running.by_pid) {
      int status = 0;
      if (::waitpid(pid, &status, WNOHANG) != pid) continue;
      gone.push_back(pid);
      finished(number, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    for (const pid_t pid : gone) running.by_pid.erase(pid);
    if (!gone.empty()) continue;
    for (const auto& [pid, number] : running.by_pid)
      if (!source.keep(number)) ::kill(pid, SIGKILL);
    waiting(), ::usleep(100'000);
  }
}

void end_with_starter() {
  const char* starter = std::getenv(kStarter);
  if (starter == nullptr) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (std::to_string(::getppid()) != starter) ::_exit(1);  // it died before the line above
  ::unsetenv(kStarter);
}

std::filesystem::path own_program() {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", error);
  check(!error, Kind::io, [&] { return io_message("read the link", "/proc/self/exe", error.value()); });
  return path;
}

}  // namespace eg
