// engine/file.cpp - atomic replacement of files, checksums, and system errors as sentences.
#include "engine/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <vector>

#include "engine/error.h"

namespace eg {
namespace {

constexpr std::uint64_t kOdd = 0x9e3779b185ebca87u;

std::uint64_t mix(std::uint64_t h, std::uint64_t word) { return std::rotl((h ^ word) * kOdd, 29); }

[[noreturn]] void fail_io(std::string_view doing, const std::filesystem::path& path, int error) {
  fail(Kind::io, io_message(doing, path, error));
}

}  // namespace

// ---- checksum -----------------------------------------------------------------------------------------------------

void Checksum::stripe(const std::byte* at) {
  for (std::size_t i = 0; i < 4; ++i) {
    std::uint64_t word = 0;
    std::memcpy(&word, at + 8 * i, 8);
    lane_[i] = mix(lane_[i], word);
  }
}

void Checksum::update(std::span<const std::byte> bytes) {
  bytes_ += bytes.size();
  if (held_ > 0) {
    const std::size_t take = std::min(bytes.size(), sizeof rest_ - held_);
    if (take > 0) std::memcpy(rest_ + held_, bytes.data(), take);
    held_ += take;
    bytes = bytes.subspan(take);
    if (held_ < sizeof rest_) return;
    stripe(rest_);
    held_ = 0;
  }
  while (bytes.size() >= sizeof rest_) {
    stripe(bytes.data());
    bytes = bytes.subspan(sizeof rest_);
  }
  if (!bytes.empty()) std::memcpy(rest_, bytes.data(), bytes.size());
  held_ = bytes.size();
}

std::uint64_t Checksum::value() const {
  Checksum end = *this;
  if (end.held_ > 0) {  // zero padding is safe: the length is mixed in below
    std::memset(end.rest_ + end.held_, 0, sizeof rest_ - end.held_);
    end.stripe(end.rest_);
  }
  std::uint64_t h = mix(kOdd, end.bytes_);
  for (const std::uint64_t lane : end.lane_) h = mix(h, lane);
  h ^= h >> 32;
  return h * kOdd;
}

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
  Checksum sum;
  sum.update(bytes);
  return sum.value();
}

std::string checksum_text(std::uint64_t value) {
  std::string text(16, '0');
  for (int i = 15; i >= 0; --i, value >>= 4) text[std::size_t(i)] = "0123456789abcdef"[value & 15];
  return text;
}

// ---- system errors ------------------------------------------------------------------------------------------------

std::string io_message(std::string_view doing, const std::filesystem::path& path, int error) {
  std::string text = cat("cannot ", doing, " ", path.string(), ": ", std::strerror(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT: return text + " (free some space or choose a folder on another disk)";
    case EROFS: return text + " (choose a folder that can be written)";
    case EACCES:
    case EPERM: return text + " (check the permissions of the file and its folder)";
    case ENOENT: return text + " (check the path)";
    case EMFILE:
    case ENFILE: return text + " (raise the limit of open files)";
    default: return text;
  }
}

FileHandle& FileHandle::operator=(FileHandle&& o) noexcept {
  if (this != &o) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = o.release();
  }
  return *this;
}
FileHandle::~FileHandle() {
  if (fd_ >= 0) ::close(fd_);
}

// ---- reading and writing ------------------------------------------------------------------------------------------

void write_all(int fd, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t(1) << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("write", path, errno);
    if (n == 0) fail_io("write", path, ENOSPC);
    bytes = bytes.subspan(std::size_t(n));
  }
}

void read_at(int fd, std::uint64_t offset, std::span<std::byte> bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t n =
        ::pread(fd, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t(1) << 30), off_t(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("read", path, errno);
    check(n > 0, Kind::io, [&] {
      return cat(path.string(), " ends at byte ", offset, ", ", bytes.size(), " bytes before the expected end; it was ",
                 "truncated while being read");
    });
    offset += std::uint64_t(n);
    bytes = bytes.subspan(std::size_t(n));
  }
}

FileHandle open_for_reading(const std::filesystem::path& path) {
  FileHandle file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // O_NONBLOCK: a pipe must not hang us
  if (!file) fail_io("open", path, errno);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) fail_io("inspect", path, errno);
  check(S_ISREG(info.st_mode), Kind::io, [&] {
    return cat("cannot read ", path.string(), ": it is ", S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
  });
  return file;
}

std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  const FileHandle file = open_for_reading(path);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) fail_io("inspect", path, errno);
  const auto size = std::uint64_t(info.st_size);
  check(size <= max_bytes, Kind::io, [&] {
    return cat("cannot read ", path.string(), ": it has ", size, " bytes, more than the ", max_bytes, " expected here");
  });
  std::string text(std::size_t(size), '\0');
  read_at(file.get(), 0, std::as_writable_bytes(std::span(text.data(), text.size())), path);
  return text;
}

void sync_folder(const std::filesystem::path& folder) {
  const std::filesystem::path at = folder.empty() ? "." : folder;
  const FileHandle handle(::open(at.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!handle) fail_io("open the folder", at, errno);
  // Some file systems cannot sync a folder and say EINVAL; there is nothing more to do about durability then.
  if (::fsync(handle.get()) != 0 && errno != EINVAL) fail_io("sync the folder", at, errno);
}

// ---- atomic replacement -------------------------------------------------------------------------------------------

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code unknown;
  // What a link points to is replaced, not the link; a device or a pipe is nothing that can be replaced.
  if (std::filesystem::is_symlink(path_, unknown)) {
    const std::filesystem::path target = std::filesystem::weakly_canonical(path_, unknown);
    if (!unknown) path_ = target;
  }
  check(!std::filesystem::is_other(path_, unknown), Kind::io, [&] {
    return cat("cannot write ", path_.string(),
               ": it is a device or a pipe, and a result takes the place of what it is written to; name a file");
  });
  temporary_ = path_;
  temporary_ += cat(".", ::getpid(), ".tmp");
  file_ = FileHandle(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file_) fail_io("write", path_, errno);
}

AtomicFile::~AtomicFile() {
  if (file_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  check(bool(file_), Kind::internal, [&] { return cat("write after commit to ", path_.string()); });
  write_all(file_.get(), bytes, path_);
  checksum_.update(bytes);
  bytes_ += bytes.size();
}

void AtomicFile::commit() {
  check(bool(file_), Kind::internal, [&] { return cat("second commit of ", path_.string()); });
  if (::fsync(file_.get()) != 0) fail_io("write", path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_io("replace", path_, errno);
  // close() may still report a failed write on network file systems.
  if (::close(file_.release()) != 0 && errno != EINTR) fail_io("write", path_, errno);
  sync_folder(path_.parent_path());
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void remove_temporaries(const std::filesystem::path& folder) {
  std::error_code ignored;
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::filesystem::path stem = entry.path().stem();
    const std::string pid = stem.extension().string();
    const bool digits =
        pid.size() > 1 && std::all_of(pid.begin() + 1, pid.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
    if (entry.path().extension() == ".tmp" && digits) found.push_back(entry.path());
  }
  for (const auto& path : found) std::filesystem::remove(path, ignored);
}

}  // namespace eg
