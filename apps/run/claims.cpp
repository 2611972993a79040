// apps/run/claims.cpp - see claims.h.
#include "apps/run/claims.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "engine/collectives/store.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

namespace fs = std::filesystem;

/// When a process began, in ticks since the machine's start: with the pid it is unique. "0": there is no such process.
std::string start_of(std::int64_t pid) {
  std::ifstream in(cat("/proc/", pid, "/stat"));
  std::string line;
  if (!std::getline(in, line)) return "0";
  std::istringstream rest(line.substr(line.rfind(')') + 1));  // the program's name may hold spaces
  std::string word;
  for (int i = 0; i < 20; ++i) rest >> word;  // field 22 of the line
  return word;
}

/// Names the space in which pids mean something: host, boot, and the container's pid namespace.
std::string pid_space() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::error_code error;
  const std::string space = fs::read_symlink("/proc/self/ns/pid", error).string();
  return cat(host_name(), "/", boot.substr(0, 8), "/", space);
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

Claims::Claims(fs::path folder, double stale_seconds) : folder_(std::move(folder)), stale_seconds_(stale_seconds) {
  std::error_code error;
  fs::create_directories(folder_, error);
  check(!error, Kind::io, [&] { return io_message("create the folder of claims", folder_, error.value()); });
}

fs::path Claims::file(const std::string& job, std::int64_t number) const {
  return folder_ / cat(job, ".claim.", number);
}

/// Numbers only grow, so one look at a name that is not there yet is enough; link() has the last word anyway.
std::int64_t Claims::last_number(const std::string& job) {
  std::int64_t& last = known_.try_emplace(job, -1).first->second;
  std::error_code error;
  while (fs::exists(file(job, last + 1), error)) ++last;
  return last;
}

/// "free|held SPACE PID START BEAT".
std::string Claims::my_text(bool free) const {
  return cat(free ? "free " : "held ", pid_space(), " ", ::getpid(), " ", start_of(::getpid()), " ", beats_, "\n");
}

bool Claims::stale(const std::string& job, const std::string& text) {
  std::istringstream words(text);
  std::string state, space, start;
  std::int64_t pid = -1;
  words >> state >> space >> pid >> start;
  if (state == "free") return true;
  const bool here = space == pid_space() && pid > 0;
  if (here && start_of(pid) != start) return true;
  const auto now = std::chrono::steady_clock::now();
  Seen& seen = seen_[job];
  if (seen.text != text || seen.since == std::chrono::steady_clock::time_point{}) seen = {text, now};
  return std::chrono::duration<double>(now - seen.since).count() > stale_seconds_;
}

bool Claims::take(const std::string& job) {
  const std::int64_t last = last_number(job);
  if (last >= 0 && !stale(job, read_text(file(job, last)))) return false;
  // Complete before it has its name: nobody reads half a claim.
  const fs::path temporary = folder_ / cat(".", job, ".", host_name(), ".", ::getpid()), path = file(job, last + 1);
  const FileHandle fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  check(bool(fd), Kind::io, [&] { return io_message("write", temporary, errno); });
  const std::string text = my_text(false);
  write_all(fd.get(), std::as_bytes(std::span(text.data(), text.size())), temporary);
  const int error = ::link(temporary.c_str(), path.c_str()) == 0 ? 0 : errno;
  ::unlink(temporary.c_str());
  check(error == 0 || error == EEXIST, Kind::io, [&] { return io_message("write", path, error); });
  if (error == 0) mine_[job] = last + 1;
  return error == 0;
}

bool Claims::beat(const std::string& job) {
  const auto mine = mine_.find(job);
  if (mine == mine_.end() || last_number(job) != mine->second) return false;
  ++beats_;
  write_file(file(job, mine->second), my_text(false));
  return true;
}

void Claims::release(const std::string& job) {
  const auto mine = mine_.find(job);
  if (mine == mine_.end()) return;
  if (last_number(job) == mine->second) write_file(file(job, mine->second), my_text(true));
  mine_.erase(mine);
}

}  // namespace eg
