// apps/run/run_folder.cpp - claiming, checking and locking the folder of a run.
#include "apps/run/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "engine/error.h"

namespace eg {
namespace {

namespace fs = std::filesystem;
constexpr const char* kLockName = ".lock";

/// The name of something in the folder that is not the lock, or nothing. Throws Error{io}.
std::optional<std::string> first_content(const fs::path& folder) {
  std::error_code error;
  fs::directory_iterator at(folder, error);
  check(!error, Kind::io, [&] { return io_message("read the folder", folder, error.value()); });
  for (; at != fs::directory_iterator(); at.increment(error)) {
    check(!error, Kind::io, [&] { return io_message("read the folder", folder, error.value()); });
    const std::string name = at->path().filename().string();
    if (name != kLockName && at->path().extension() != ".tmp") return name;
  }
  return std::nullopt;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "an unknown host";
}

/// Who holds the lock, as its owner wrote it: "pid 12 on host x".
std::string lock_owner(int fd) {
  std::array<char, 300> text{};
  const ssize_t n = ::pread(fd, text.data(), text.size() - 1, 0);
  std::string owner(text.data(), n > 0 ? std::size_t(n) : 0);
  while (!owner.empty() && static_cast<unsigned char>(owner.back()) <= ' ') owner.pop_back();
  return owner.empty() ? "its pid is not known" : owner;
}

[[noreturn]] void refuse_live(const fs::path& folder, int fd) {
  fail(Kind::usage, cat("another live process writes into ", folder.string(), " (", lock_owner(fd),
                        "); wait for it, stop it, or choose another --out"));
}

/// Tells whether another process holds the lock of an existing folder, without creating anything.
void refuse_if_live(const fs::path& folder) {
  const FileHandle lock(::open((folder / kLockName).c_str(), O_RDONLY | O_CLOEXEC));
  if (!lock) return;
  if (::flock(lock.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) refuse_live(folder, lock.get());
}

FileHandle take_lock(const fs::path& folder) {
  const fs::path path = folder / kLockName;
  FileHandle lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  check(bool(lock), Kind::io, [&] { return io_message("write into the output folder", folder, errno); });
  // A few tries: a process that only asks whether the folder is taken holds a shared lock for a moment.
  int result = ::flock(lock.get(), LOCK_EX | LOCK_NB);
  for (int i = 0; i < 10 && result != 0 && (errno == EINTR || errno == EWOULDBLOCK); ++i) {
    ::usleep(20'000);
    result = ::flock(lock.get(), LOCK_EX | LOCK_NB);
  }
  if (result != 0 && errno == EWOULDBLOCK) refuse_live(folder, lock.get());
  check(result == 0, Kind::io, [&] { return io_message("lock", path, errno); });
  check(::ftruncate(lock.get(), 0) == 0, Kind::io, [&] { return io_message("write", path, errno); });
  const std::string owner = cat("pid ", ::getpid(), " on host ", host_name(), '\n');
  write_all(lock.get(), std::as_bytes(std::span(owner.data(), owner.size())), path);
  return lock;
}

void check_content(const fs::path& folder, bool resume) {
  const auto content = first_content(folder);
  if (!content) return;
  check(resume, Kind::usage, [&] {
    return cat("the output folder ", folder.string(), " already holds files (", *content,
               "); add --resume to continue that run, or choose another --out");
  });
  check(fs::exists(folder / "config.toml"), Kind::usage, [&] {
    return cat("cannot resume in ", folder.string(), ": it holds files (", *content,
               ") but no config.toml, so it is not the folder of a run; choose another --out");
  });
}

}  // namespace

RunFolder RunFolder::open(const fs::path& given, bool resume) {
  check(!given.empty(), Kind::usage, [] { return std::string("--out needs the name of a folder"); });
  std::error_code error;
  const fs::path folder = fs::absolute(given, error).lexically_normal();
  const bool existed = fs::exists(folder, error);
  if (existed) {
    check(fs::is_directory(folder, error), Kind::usage,
          [&] { return cat("--out ", given.string(), " is a file, not a folder; choose another name"); });
    refuse_if_live(folder);
    check_content(folder, resume);  // before the lock, so that a refused folder is left exactly as it was
  } else {
    fs::create_directories(folder, error);
    check(!error, Kind::io, [&] { return io_message("create the output folder", folder, error.value()); });
  }
  RunFolder run(folder, take_lock(folder));
  check_content(folder, resume);  // again: another process may have come and gone before the lock was ours
  remove_temporaries(folder);
  run.continues_ = fs::exists(run.config(), error);
  return run;
}

RunFolder RunFolder::join(const fs::path& given, bool continues) {
  std::error_code error;
  RunFolder run(fs::absolute(given, error).lexically_normal(), FileHandle());
  run.continues_ = continues;
  return run;
}

RunFolder::~RunFolder() {
  // The file stays: removing it would let a process that just opened it lock a file that no longer has a name.
  if (lock_) [[maybe_unused]]
    const int emptied = ::ftruncate(lock_.get(), 0);
}

std::string run_name(const std::string& method, std::uint64_t seed) {
  std::string name;
  for (const char c : method)
    name += std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '+' || c == '-' || c == '=' ? c : '_';
  return cat(name, "-seed", seed);
}

void write_json(const fs::path& path, const nlohmann::json& json) {
  write_file(path, json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n');
}

void check_no_file_of_a_run(const std::filesystem::path& file) {
  if (file.empty()) return;
  std::error_code unknown;
  const std::filesystem::path whole = std::filesystem::absolute(file, unknown).lexically_normal();
  const std::filesystem::path folder = whole.parent_path();
  const std::set<std::string> records = {"config.toml", "metrics.jsonl", "summary.json", "ranks.jsonl", ".lock"};
  const bool record = records.contains(whole.filename().string()) && std::filesystem::exists(whole, unknown) &&
                      std::filesystem::exists(folder / "config.toml", unknown);
  const bool checkpoint =
      folder.filename() == "checkpoints" && std::filesystem::exists(folder.parent_path() / "config.toml", unknown);
  check(!record && !checkpoint, Kind::usage, [&] {
    return cat(file.string(), " belongs to the run in ", (checkpoint ? folder.parent_path() : folder).string(),
               ", which could not go on without it; name another file");
  });
}

}  // namespace eg
