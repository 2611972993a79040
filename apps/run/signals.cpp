// apps/run/signals.cpp - the only signal handler of evergrad.
#include "apps/run/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace eg {
namespace {

std::atomic<int> received{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

void on_signal(int signal) {
  const int before = received.exchange(signal);
  // Whoever presses Ctrl-C twice does not want to wait for the checkpoint. Nothing is lost: the previous one is whole.
  if (before != 0 && signal == SIGINT) ::_exit(128 + signal);
}

}  // namespace

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  // A file beyond `ulimit -f` is then an error with its name, and not the end of the process.
  action.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &action, nullptr);
}
int stop_signal() { return received.load(); }
int stop_exit_code() { return stop_signal() ? 128 + stop_signal() : 0; }
void clear_stop_signal() { received.store(0); }

}  // namespace eg
