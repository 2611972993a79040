// tests/emulated/apart.h - what AddressSanitizer may end runs in a process of its own.
#pragma once
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

namespace eg::emulated_backend {

struct Outcome {
  int code = 0;      // what `run` returned, the sanitizer's exit code, or 128 + signal
  std::string text;  // standard error
  bool sanitizer() const {
    return text.find("Sanitizer") != std::string::npos || text.find("runtime error") != std::string::npos;
  }
};

inline Outcome run_apart(const std::function<int()>& run) {
  int pipe_ends[2];
  REQUIRE(::pipe(pipe_ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(pipe_ends[1], STDERR_FILENO);
    ::_exit(run());
  }
  ::close(pipe_ends[1]);
  Outcome o;
  char buffer[4096];
  for (ssize_t n; (n = ::read(pipe_ends[0], buffer, sizeof buffer)) > 0;) o.text.append(buffer, std::size_t(n));
  ::close(pipe_ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  o.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return o;
}

}  // namespace eg::emulated_backend
