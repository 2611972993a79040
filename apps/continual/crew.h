// apps/continual/crew.h - the processes of a start that share the runs of a farm, through nothing but its folder.
//
// No messages, no leader: every process goes over the list of runs, claims what nobody has (apps/run/claims.h), runs it, and
// looks again. A process that is lost leaves a claim that goes stale, and its run is taken over where its last checkpoint is.
// Rank 0 differs in one thing: it writes the summary when all is done.
#pragma once
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "apps/run/claims.h"
#include "apps/run/config.h"
#include "apps/run/processes.h"
#include "engine/collectives/launch.h"

namespace eg {

/// What a crew needs to know about run number i.
struct CrewRuns {
  std::function<bool(std::size_t)> is_finished;  // its summary is there
  std::function<Process(std::size_t)> process;
  std::function<std::filesystem::path(std::size_t)> log;
  std::function<void(std::size_t, int)> ended;  // one of this process's own, with its exit code
  std::function<void()> waiting;
};

class Crew {
 public:
  /// Claims lie in OUT/claims. Forgets failures of an earlier start, so that they are tried again.
  Crew(const std::filesystem::path& out, const Launch& launch, double stale_seconds);
  /// Until every run is finished or has failed somewhere, whoever ran it; at most `limit` of this process's own at a time.
  /// False after a stop signal, when this process's own have saved. A run that a signal killed (memory ran out) is tried
  /// three times.
  bool work(const std::vector<std::string>& names, const CrewRuns& runs, int limit);
  std::size_t finished() const { return finished_.size(); }  // of the last work()
  std::size_t failed() const { return failed_.size(); }

 private:
  Work next(const std::vector<std::string>& names, const CrewRuns& runs, std::size_t* number, Process* process);
  bool settled(const std::vector<std::string>& names, const CrewRuns& runs, std::size_t i);
  void end(const std::vector<std::string>& names, const CrewRuns& runs, std::size_t i, int code);
  std::filesystem::path failure(const std::string& name) const { return folder_ / (name + ".failed"); }

  const std::filesystem::path folder_;
  const Launch launch_;
  const double stale_seconds_;
  Claims claims_;
  std::set<std::size_t> finished_, failed_, mine_;
  std::map<std::size_t, int> kills_;
  std::chrono::steady_clock::time_point look_again_{}, beat_again_{};
  double pause_ = 0.1;  // seconds between two looks at the whole list while nothing was free
};

/// The folder that rank 0 makes, once its config.toml is there. Throws Error{io}: not within a minute; Error{usage}: it is
/// that of a run with another configuration.
std::filesystem::path await_run_folder(const std::filesystem::path& out, const Config& config);

}  // namespace eg
