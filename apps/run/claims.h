// apps/run/claims.h - who does what, between processes that share nothing but a folder.
//
// A claim on a job is the file JOB.claim.N, made by link(), which fails when the name exists: of two processes that want a job
// one gets it. Nobody ever removes or overwrites another's claim. A claim that has gone stale is beaten by JOB.claim.N+1, so
// taking over is as atomic as taking, and the loser, should it wake, sees that it has lost.
#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace eg {

class Claims {
 public:
  /// Makes the folder. stale_seconds: a claim whose beat has not changed for so long, as seen by this process's own clock, is
  /// stale; one whose process has died on this host is stale at once. Throws Error{io}.
  Claims(std::filesystem::path folder, double stale_seconds);
  /// Claims the job unless a live process has it. `job` is a name as run_name makes them. Throws Error{io}.
  bool take(const std::string& job);
  /// Shows that this process is alive; call it some times per stale_seconds. False: the claim was taken over meanwhile, so
  /// this process must stop that job at once.
  bool beat(const std::string& job);
  /// Gives the job back, finished or not.
  void release(const std::string& job);

 private:
  struct Seen {
    std::string text;
    std::chrono::steady_clock::time_point since;
  };
  std::filesystem::path file(const std::string& job, std::int64_t number) const;
  std::int64_t last_number(const std::string& job);
  bool stale(const std::string& job, const std::string& text);
  std::string my_text(bool free) const;

  const std::filesystem::path folder_;
  const double stale_seconds_;
  std::map<std::string, std::int64_t> mine_, known_;  // job -> number of this process's claim; of the newest
  std::map<std::string, Seen> seen_;
  std::int64_t beats_ = 0;
};

}  // namespace eg
