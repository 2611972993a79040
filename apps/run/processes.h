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

/// This program's own file. Throws Error{io}.
std::filesystem::path own_program();

}  // namespace eg
