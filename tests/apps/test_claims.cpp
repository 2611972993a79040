// Claims between processes: one owner at a time, the dead are succeeded at once, the silent after a while, nobody twice.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "apps/run/claims.h"
#include "engine/error.h"
#include "engine/file.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;

namespace {

/// A child that claims `job`, says so with a byte, and sleeps until it is killed.
pid_t child_that_claims(const std::filesystem::path& folder, const std::string& job) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    char ok = 'n';
    try {
      ok = Claims(folder, 60.0).take(job) ? 'y' : 'n';
    } catch (const std::exception&) {}
    [[maybe_unused]] const auto n = ::write(ends[1], &ok, 1);
    for (;;) ::pause();
  }
  char answer = 0;
  REQUIRE(::read(ends[0], &answer, 1) == 1);
  CHECK(answer == 'y');
  ::close(ends[0]), ::close(ends[1]);
  return pid;
}

}  // namespace

TEST_CASE("claims: one of many takes a job, and gives it back") {
  const TemporaryFolder folder;
  Claims a(folder / "claims", 60.0), b(folder / "claims", 60.0);
  CHECK(a.take("run-1"));
  CHECK_FALSE(b.take("run-1"));
  CHECK_FALSE(a.take("run-1"));
  CHECK(b.take("run-10"));  // no prefix of another name is meant
  CHECK(a.beat("run-1"));
  CHECK_FALSE(b.beat("run-1"));
  a.release("run-1");
  CHECK_FALSE(a.beat("run-1"));
  CHECK(b.take("run-1"));
}

TEST_CASE("claims: many at once, every job once") {
  const TemporaryFolder folder;
  std::atomic<int> taken{0};
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    const pid_t pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      int mine = 0;
      try {
        Claims c(folder / "claims", 60.0);
        for (int job = 0; job < 30; ++job) mine += c.take("job-" + std::to_string(job));
      } catch (const std::exception&) { mine = 99; }
      // A claim must outlive the others' tries, so nobody ends before all have tried.
      const std::string done = (folder / "done").string() + std::to_string(::getpid());
      write_file(done, std::to_string(mine));
      for (;;) ::pause();
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    const std::string done = (folder / "done").string() + std::to_string(pid);
    for (int i = 0; i < 6000 && !std::filesystem::exists(done); ++i) ::usleep(5000);
    taken += std::stoi(read_file(done));
  }
  for (const pid_t pid : children) ::kill(pid, SIGKILL), ::waitpid(pid, nullptr, 0);
  CHECK(taken == 30);
}

TEST_CASE("claims: a process that died is succeeded at once, one that sleeps after its time") {
  const TemporaryFolder folder;
  const pid_t pid = child_that_claims(folder / "claims", "run");
  Claims c(folder / "claims", 60.0);
  CHECK_FALSE(c.take("run"));
  ::kill(pid, SIGKILL), ::waitpid(pid, nullptr, 0);
  CHECK(c.take("run"));

  // A claim from elsewhere: no process to look for, so its silence counts, by this process's own clock.
  write_file(folder / "claims" / "far.claim.0", "held other-host/b/c 1 2 3\n");
  Claims patient(folder / "claims", 0.2);
  CHECK_FALSE(patient.take("far"));
  ::usleep(120'000);
  write_file(folder / "claims" / "far.claim.0", "held other-host/b/c 1 2 4\n");  // it beat
  CHECK_FALSE(patient.take("far"));
  ::usleep(120'000);
  CHECK_FALSE(patient.take("far"));
  ::usleep(150'000);
  CHECK(patient.take("far"));
}

TEST_CASE("claims: who was silent too long sees that the job is another's") {
  const TemporaryFolder folder;
  Claims sleeper(folder / "claims", 60.0);
  CHECK(sleeper.take("run"));
  write_file(folder / "claims" / "run.claim.1", "held other-host/b/c 1 2 3\n");
  CHECK_FALSE(sleeper.beat("run"));
  sleeper.release("run");  // touches nothing of the other's
  CHECK(read_file(folder / "claims" / "run.claim.1") == "held other-host/b/c 1 2 3\n");
}

TEST_CASE("claims: a folder that cannot be made is named") {
  const TemporaryFolder folder;
  write_file(folder / "file", "");
  CHECK_THROWS_AS(Claims(folder / "file" / "claims", 60.0), Error);
}
