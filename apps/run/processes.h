// apps/run/processes.h - several programs at a time, up to a limit, each with its own log.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace eg {

struct Process {
  std::vector<std::string> arguments;  // without the program's name
  std::filesystem::path log;           // gets its standard output and error
};

/// Runs `program` once per process, at most `limit` at a time, in order. `finished(index, exit_code)` is called as each
/// ends, `waiting()` some times a second; both on the calling thread. After a stop signal (apps/run/signals.h) nothing
/// more is started, the running ones get SIGTERM, and it returns when they are gone: false. Throws Error{io} when a
/// process cannot be started; those already running are stopped first.
bool run_processes(const std::filesystem::path& program, const std::vector<Process>& processes, int limit,
                   const std::function<void(std::size_t, int)>& finished, const std::function<void()>& waiting);

/// The same for work that turns up while it runs. `next` gives a process and its number, or says that there is none at present
/// (it is asked again some times a second) or none any more. `keep`, asked some times a second about each running one: false
/// kills it.
enum class Work { process, later, none };
struct WorkSource {
  std::function<Work(std::size_t* number, Process*)> next;
  std::function<bool(std::size_t)> keep;
};
bool run_work(const std::filesystem::path& program, const WorkSource& source, int limit,
              const std::function<void(std::size_t, int)>& finished, const std::function<void()>& waiting);

/// In a process that one of these started: dies when its starter does, be it by kill -9, so that nobody who takes over meets
/// it. Elsewhere nothing. Call it first in main.
void end_with_starter();

/// This program's own file. Throws Error{io}.
std::filesystem::path own_program();

}  // namespace eg
