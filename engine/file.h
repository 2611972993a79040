// engine/file.h - files that are either the old one or the complete new one, whatever happens in between.
//
// AtomicFile writes a temporary file next to the target, fsyncs it, renames it over the target and fsyncs the folder
// (Pillai et al. 2014, "All file systems are not created equal", OSDI: without both fsyncs a crash may leave an empty
// file). Until commit() nothing under the target's name changes; a dropped or failed write leaves no trace.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace eg {

/// A 64-bit checksum for storage faults, not for attackers: four independent lanes of 8-byte words, each step
/// h = rotl((h ^ word) * odd, 29), which is a bijection in `word`: changing any one word always changes the value.
class Checksum {
 public:
  void update(std::span<const std::byte> bytes);
  std::uint64_t value() const;

 private:
  void stripe(const std::byte* at);
  std::uint64_t lane_[4] = {0x9e3779b97f4a7c15u, 0xc2b2ae3d27d4eb4fu, 0x165667b19e3779f9u, 0x27d4eb2f165667c5u};
  std::byte rest_[32] = {};
  std::size_t held_ = 0;
  std::uint64_t bytes_ = 0;
};
std::uint64_t checksum_of(std::span<const std::byte> bytes);
/// 16 lower-case hexadecimal digits.
std::string checksum_text(std::uint64_t value);

/// Closes a file descriptor when it dies.
class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(int fd) : fd_(fd) {}
  FileHandle(FileHandle&& o) noexcept : fd_(o.release()) {}
  FileHandle& operator=(FileHandle&& o) noexcept;
  ~FileHandle();
  int get() const { return fd_; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// A file that appears under `path` complete or not at all. The temporary is `<path>.<pid>.tmp`.
/// Every member throws Error{io} with the path, the system's reason and, where one is known, the remedy.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  /// Without a commit() the temporary is removed.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  /// fsync, rename, fsync of the folder.
  void commit();
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t checksum() const { return checksum_.value(); }

 private:
  std::filesystem::path path_, temporary_;
  FileHandle file_;
  Checksum checksum_;
  std::uint64_t bytes_ = 0;
};

/// One AtomicFile, one write, one commit.
void write_file(const std::filesystem::path& path, std::string_view text);
/// The whole file. Throws Error{io} when it cannot be read or is larger than max_bytes.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes = std::uint64_t(1) << 31);
/// Opens for reading. Throws Error{io}, also for a folder.
FileHandle open_for_reading(const std::filesystem::path& path);
/// Writes all bytes to fd, through short writes and interrupts; throws Error{io} naming `path`.
void write_all(int fd, std::span<const std::byte> bytes, const std::filesystem::path& path);
/// Reads exactly bytes.size() bytes at `offset`; throws Error{io}, also when the file is shorter.
void read_at(int fd, std::uint64_t offset, std::span<std::byte> bytes, const std::filesystem::path& path);
/// Makes renames and removals inside the folder durable.
void sync_folder(const std::filesystem::path& folder);
/// Removes what killed processes left of their AtomicFiles in `folder` (names ending in .<digits>.tmp). Call it only
/// while no other process writes there.
void remove_temporaries(const std::filesystem::path& folder);
/// "cannot write /x/y: No space left on device (free some space or choose another folder)" for an errno value.
std::string io_message(std::string_view doing, const std::filesystem::path& path, int error);

}  // namespace eg
