// apps/continual/crew.cpp - see crew.h.
#include "apps/continual/crew.h"

#include <unistd.h>

#include <algorithm>

#include "apps/run/signals.h"
#include "apps/setup.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kTries = 3;  // of a run that signals kill

Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

/// The run of a lost process may need a moment to die with it; until then its folder is locked.
bool was_busy(const fs::path& log, int code) {
  if (code != 2) return false;
  try {
    return read_file(log, std::uint64_t(1) << 24).find("another live process writes into") != std::string::npos;
  } catch (const Error&) { return false; }
}

}  // namespace

Crew::Crew(const fs::path& out, const Launch& launch, double stale_seconds)
    : folder_(out / "claims"), launch_(launch), stale_seconds_(stale_seconds), claims_(folder_, stale_seconds) {
  std::error_code error;
  std::vector<fs::path> old;
  for (fs::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error))
    if (at->path().extension() == ".failed") old.push_back(at->path());
  for (const fs::path& path : old) fs::remove(path, error);
}

bool Crew::work(const std::vector<std::string>& names, const CrewRuns& runs, int limit) {
  finished_.clear(), failed_.clear(), mine_.clear(), kills_.clear();
  look_again_ = {}, pause_ = 0.1;
  const WorkSource source{
      [&](std::size_t* number, Process* process) { return next(names, runs, number, process); },
      [&](std::size_t i) { return mine_.count(i) > 0; },
  };
  const auto waiting = [&] {
    if (Clock::now() >= beat_again_) {
      // A claim that was lost: this process was silent for too long, and another has the run.
      for (auto at = mine_.begin(); at != mine_.end();) at = claims_.beat(names[*at]) ? std::next(at) : mine_.erase(at);
      beat_again_ = after(stale_seconds_ / 10);
    }
    runs.waiting();
  };
  const auto ended = [&](std::size_t i, int code) { end(names, runs, i, code); };
  return run_work(own_program(), source, limit, ended, waiting);
}

/// True when nothing is left to do for run i.
bool Crew::settled(const std::vector<std::string>& names, const CrewRuns& runs, std::size_t i) {
  if (finished_.count(i) > 0 || failed_.count(i) > 0) return true;
  std::error_code error;
  if (runs.is_finished(i)) return finished_.insert(i).second;
  return fs::exists(failure(names[i]), error) && failed_.insert(i).second;
}

Work Crew::next(const std::vector<std::string>& names, const CrewRuns& runs, std::size_t* number, Process* process) {
  if (Clock::now() < look_again_) return Work::later;
  // Ranks begin at different places of the list, so that they seldom want the same run.
  const std::size_t n = names.size(), first = n * std::size_t(launch_.rank) / std::size_t(launch_.size);
  bool all = true;
  for (std::size_t k = 0; k < n; ++k) {
    const std::size_t i = (first + k) % n;
    if (settled(names, runs, i)) continue;
    all = false;
    if (mine_.count(i) > 0 || !claims_.take(names[i])) continue;
    if (settled(names, runs, i)) {  // it was finished between the two looks
      claims_.release(names[i]);
      continue;
    }
    mine_.insert(i);
    *number = i, *process = runs.process(i), pause_ = 0.1;
    return Work::process;
  }
  pause_ = std::min(2.0, pause_ * 1.5), look_again_ = after(pause_);
  return all ? Work::none : Work::later;
}

void Crew::end(const std::vector<std::string>& names, const CrewRuns& runs, std::size_t i, int code) {
  look_again_ = {};
  const bool lost = mine_.erase(i) == 0, finished = runs.is_finished(i), stopped = stop_signal() != 0;
  if (lost && !finished) return;  // killed here because another process runs it
  const bool again = code > 128 ? ++kills_[i] < kTries : was_busy(runs.log(i), code);
  if (!finished && !stopped && !again)
    write_file(failure(names[i]), cat("rank ", launch_.rank, ", exit code ", code, "\n"));
  claims_.release(names[i]);
  if (finished || stopped || !again) return runs.ended(i, code);
  look_again_ = after(0.5);
}

fs::path await_run_folder(const fs::path& out, const Config& config) {
  std::error_code error;
  const fs::path folder = fs::absolute(out, error).lexically_normal();
  const auto until = after(60.0);
  while (!fs::exists(folder / "config.toml", error)) {
    check(Clock::now() < until && stop_signal() == 0, Kind::io, [&] {
      return cat("rank 0 has not made ", folder.string(),
                 "/config.toml within 60 s; does this host see the folder, and does "
                 "rank 0 run? See its output");
    });
    ::usleep(50'000);
  }
  check_resumable(folder, config);
  return folder;
}

}  // namespace eg
