// engine/collectives/file_store.cpp - a store as files in a folder that all ranks see.
//
// An entry appears by rename and ends in a checksum, so a reader sees it complete or not at all, also where a network file
// system shows a name before its content. A counter's n-th value is the file NAME#n, made by link(), which fails when it
// exists: of two ranks that add at once one tries again.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <filesystem>

#include "engine/collectives/store.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

namespace fs = std::filesystem;

/// Tells apart what the threads of a process write.
std::atomic<std::int64_t> written{0};

/// A key as a file name: letters, digits, '-' and '_' stay, all else becomes %XX. A name never begins with a dot.
std::string file_name(const std::string& key) {
  static constexpr char hex[] = "0123456789abcdef";
  std::string name;
  for (const char c : key) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u) || c == '-' || c == '_')
      name += c;
    else
      name += '%', name += hex[u >> 4], name += hex[u & 15];
  }
  return name;
}

std::string key_of(const std::string& name) {
  std::string key;
  for (std::size_t i = 0; i < name.size(); ++i) {
    int value = 0;
    const bool coded = name[i] == '%' && i + 2 < name.size() &&
                       std::from_chars(name.data() + i + 1, name.data() + i + 3, value, 16).ptr == name.data() + i + 3;
    key += coded ? char(value) : name[i];
    i += coded ? 2 : 0;
  }
  return key;
}

std::string with_checksum(const std::string& value) {
  return value + checksum_text(checksum_of(std::as_bytes(std::span(value.data(), value.size()))));
}

/// The value of a file, or nothing when it is absent or not complete.
std::optional<std::string> read_entry(const fs::path& path) {
  const FileHandle fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::nullopt;
  std::string text(Store::kLongestValue + 17, '\0');
  std::size_t have = 0;
  for (ssize_t n = 1; n > 0 && have<text.size(); have += n> 0 ? std::size_t(n) : 0)
    if ((n = ::read(fd.get(), text.data() + have, text.size() - have)) < 0) return std::nullopt;
  if (have < 16 || have > Store::kLongestValue + 16) return std::nullopt;
  text.resize(have);
  const std::string value = text.substr(0, have - 16);
  return with_checksum(value) == text ? std::optional(value) : std::nullopt;
}

class FileStore : public Store {
 public:
  FileStore(const Launch& launch, fs::path folder, bool first)
      : Store(launch.rank, launch.size), launch_(launch), folder_(std::move(folder)), first_(first) {
    if (!first_) return;
    std::error_code error;
    fs::create_directories(folder_, error);
    check(!error, Kind::io, [&] { return io_message("create the rendezvous folder", folder_, error.value()); });
    const std::string me = cat("pid ", ::getpid(), " on host ", host_name());
    const fs::path mine = folder_ / cat("member-", rank());
    check(create(mine, me), Kind::usage, [&] {
      return cat("rank ", rank(), " may not join the store ", where(), ": rank ", rank(), " has already arrived (",
                 read_entry(mine).value_or("unreadable"), "; this is ", me, "); the nonce '", launch_.nonce,
                 "' was used before: set EVERGRAD_NONCE to a new text, the same on all ranks");
    });
    const fs::path sizes = folder_ / "size";
    const bool made = create(sizes, std::to_string(size()));
    const std::string told = read_entry(sizes).value_or(std::to_string(size()));
    check(made || told == std::to_string(size()), Kind::usage, [&] {
      return cat("rank ", rank(), " may not join the store ", where(), ": another rank was told that there are ", told,
                 " ranks and this one that there are ", size(), "; start all ranks with the same number");
    });
  }

  ~FileStore() override {
    if (!first_ || std::uncaught_exceptions() > 0) return;
    try {
      if (add("leavers", 1) < size()) return;
      // Another rank may still be taking away the file that its count was linked from, and remove_all() stops at a name that
      // is gone by then. It writes nothing after that, so a few more tries suffice.
      for (int tries = 0; tries < 100; ++tries, ::usleep(1000)) {
        std::error_code error;
        fs::remove_all(folder_, error);
        if (!error) return;
      }
    } catch (const std::exception&) {  // left for a person to look at
    }
  }

  std::string where() const override { return cat("file://", folder_.string()); }

  void set(const std::string& key, const std::string& value) override {
    check_entry(key, value);
    const fs::path temporary = write_temporary(value), path = folder_ / file_name(key);
    check(::rename(temporary.c_str(), path.c_str()) == 0, Kind::io, [&] { return io_message("write", path, errno); });
  }

  std::optional<std::string> find(const std::string& key) override {
    check_entry(key);
    return read_entry(folder_ / file_name(key));
  }

  std::int64_t add(const std::string& key, std::int64_t amount) override {
    check_entry(key);
    const std::string name = file_name(key);
    auto& [n, value] = counters_[key];
    for (;;) {
      while (const auto next = read_entry(folder_ / cat(name, "#", n + 1))) {
        std::from_chars(next->data(), next->data() + next->size(), value);
        ++n;
      }
      if (amount == 0) return value;
      const std::int64_t sum = value + amount;
      if (create(folder_ / cat(name, "#", n + 1), std::to_string(sum))) return ++n, value = sum;
      ::usleep(1000);
    }
  }

  std::map<std::string, std::string> list(const std::string& prefix) override {
    std::map<std::string, std::string> found;
    std::error_code error;
    for (fs::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error)) {
      const std::string name = at->path().filename().string(), key = key_of(name);
      if (name[0] == '.' || name.find('#') != std::string::npos || key.rfind(prefix, 0) != 0) continue;
      if (const auto value = read_entry(at->path())) found[key] = *value;
    }
    check(!error, Kind::io, [&] { return io_message("read the rendezvous folder", folder_, error.value()); });
    return found;
  }

  std::unique_ptr<Store> second() override { return std::make_unique<FileStore>(launch_, folder_, false); }
  void set_patience(double) override {}  // the file system has a patience of its own

 private:
  fs::path write_temporary(const std::string& value) {
    // Unique over hosts, processes and threads of a rank.
    const fs::path path = folder_ / cat(".", rank(), ".", ::getpid(), ".", written++);
    const FileHandle fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    check(bool(fd), Kind::io, [&] { return io_message("write into the rendezvous folder", folder_, errno); });
    const std::string text = with_checksum(value);
    try {
      write_all(fd.get(), std::as_bytes(std::span(text.data(), text.size())), path);
    } catch (...) {
      ::unlink(path.c_str());
      throw;
    }
    return path;
  }

  /// Makes the file unless it exists: false.
  bool create(const fs::path& path, const std::string& value) {
    const fs::path temporary = write_temporary(value);
    const int error = ::link(temporary.c_str(), path.c_str()) == 0 ? 0 : errno;
    ::unlink(temporary.c_str());
    check(error == 0 || error == EEXIST, Kind::io, [&] { return io_message("write", path, error); });
    return error == 0;
  }

  const Launch launch_;
  const fs::path folder_;
  const bool first_;
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> counters_;  // last number seen, its value
};

}  // namespace

std::unique_ptr<Store> file_store(const Launch& launch, const std::string& folder) {
  check(!launch.nonce.empty() && launch.nonce.size() <= 100, Kind::usage, [&] {
    return cat("ranks that meet in the folder ", folder,
               " need a nonce of 1 to 100 characters, so that no file of an earlier "
               "start is taken for one of this: set EVERGRAD_NONCE to a new text, the same on all ranks");
  });
  check(!folder.empty() && folder[0] == '/', Kind::usage, [&] {
    return cat("the rendezvous folder '", folder, "' must be an absolute path on a file system that all ranks see");
  });
  return std::make_unique<FileStore>(launch, fs::path(folder) / ("evergrad-" + file_name(launch.nonce)), true);
}

}  // namespace eg
