// apps/run/processes.cpp - see processes.h.
#include "apps/run/processes.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "apps/run/signals.h"
#include "engine/error.h"
#include "engine/file.h"

extern char** environ;

namespace eg {
namespace {

pid_t start(const std::filesystem::path& program, const Process& process) {
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
  Running running;
  std::size_t next = 0;
  bool asked = false;
  while (true) {
    if (stop_signal() != 0 && !asked) running.signal(SIGTERM), asked = true;
    while (!asked && next < processes.size() && running.by_pid.size() < std::size_t(limit)) {
      running.by_pid[start(program, processes[next])] = next;
      ++next;
    }
    if (running.by_pid.empty()) return !asked;
    std::vector<pid_t> gone;
    for (const auto& [pid, index] : running.by_pid) {
      int status = 0;
      if (::waitpid(pid, &status, WNOHANG) != pid) continue;
      gone.push_back(pid);
      finished(index, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    for (const pid_t pid : gone) running.by_pid.erase(pid);
    if (gone.empty()) waiting(), ::usleep(100'000);
  }
}

std::filesystem::path own_program() {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", error);
  check(!error, Kind::io, [&] { return io_message("read the link", "/proc/self/exe", error.value()); });
  return path;
}

}  // namespace eg
