// tests/engine/test_file.cpp - atomic replacement, checksums, and what the file system can do to us.
#include <doctest/doctest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "engine/error.h"
#include "engine/file.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {
std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
std::size_t files_in(const fs::path& folder) {
  return std::size_t(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}
}  // namespace

TEST_CASE("checksum: pieces of any size give the value of the whole") {
  std::string text(1000, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = char(i * 7 + i / 256);
  const std::uint64_t whole = checksum_of(bytes_of(text));
  for (const std::size_t piece : {1u, 3u, 31u, 32u, 33u, 64u, 999u}) {
    Checksum sum;
    for (std::size_t at = 0; at < text.size(); at += piece)
      sum.update(bytes_of(text).subspan(at, std::min(piece, text.size() - at)));
    CHECK(sum.value() == whole);
  }
}

TEST_CASE("checksum: every single flipped bit and every shorter length changes it") {
  std::string text(100, '\0');
  const std::uint64_t whole = checksum_of(bytes_of(text));
  for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string other = text;
    other[bit / 8] = char(other[bit / 8] ^ (1 << (bit % 8)));
    CHECK(checksum_of(bytes_of(other)) != whole);
  }
  for (std::size_t n = 0; n < text.size(); ++n) CHECK(checksum_of(bytes_of(text).first(n)) != whole);
  CHECK(checksum_text(0x0123456789abcdefu) == "0123456789abcdef");
}

TEST_CASE("atomic file: the target changes at commit and not before") {
  const TemporaryFolder folder;
  const fs::path path = folder / "a";
  write_file(path, "old");
  {
    AtomicFile file(path);
    file.write("new content");
    CHECK(read_file(path) == "old");
    CHECK(files_in(folder.path()) == 2);
  }
  CHECK(read_file(path) == "old");
  CHECK(files_in(folder.path()) == 1);  // a dropped write leaves nothing
  AtomicFile file(path);
  file.write("new ");
  file.write("content");
  file.commit();
  CHECK(read_file(path) == "new content");
  CHECK(files_in(folder.path()) == 1);
  CHECK(file.bytes() == 11);
  CHECK(file.checksum() == checksum_of(bytes_of("new content")));
}

TEST_CASE("atomic file: a missing folder is an error with the path and the reason") {
  const TemporaryFolder folder;
  const std::string text = error_text(Kind::io, [&] { write_file(folder / "no" / "file", "x"); });
  CHECK(text.find((folder / "no" / "file").string()) != std::string::npos);
  CHECK(text.find("No such file or directory") != std::string::npos);
}

TEST_CASE("atomic file: a link's target is replaced, not the link; a pipe is refused and stays") {
  const TemporaryFolder folder;
  write_file(folder / "target", "old");
  std::filesystem::create_symlink("target", folder / "link");
  write_file(folder / "link", "new");
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(read_file(folder / "target") == "new");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_AS(write_file(folder / "pipe", "x"), Error);
  CHECK(std::filesystem::is_fifo(folder / "pipe"));
}

TEST_CASE("atomic file: a full disk leaves the old file and no temporary") {
  const MountedFolder disk("64k");
  if (!disk) return;
  const fs::path path = disk.path() / "a";
  write_file(path, "old");
  const std::string text = error_text(Kind::io, [&] { write_file(path, std::string(1 << 20, 'x')); });
  CHECK(text.find("No space left on device") != std::string::npos);
  CHECK(text.find(path.string()) != std::string::npos);
  CHECK(read_file(path) == "old");
  CHECK(files_in(disk.path()) == 1);
}

TEST_CASE("atomic file: a read-only mount is an error that says so") {
  const MountedFolder disk("64k");
  if (!disk) return;
  write_file(disk.path() / "a", "old");
  disk.make_read_only();
  const std::string text = error_text(Kind::io, [&] { write_file(disk.path() / "a", "new"); });
  CHECK(text.find("Read-only file system") != std::string::npos);
  CHECK(read_file(disk.path() / "a") == "old");
}

TEST_CASE("read_file: folders, pipes, missing and oversized files are errors, never a hang") {
  const TemporaryFolder folder;
  CHECK(error_text(Kind::io, [&] { read_file(folder.path()); }).find("a folder") != std::string::npos);
  CHECK(error_text(Kind::io, [&] { read_file("/dev/zero"); }).find("not a regular file") != std::string::npos);
  CHECK(error_text(Kind::io, [&] { read_file(folder / "none"); }).find("No such file") != std::string::npos);
  write_file(folder / "big", "12345");
  CHECK(error_text(Kind::io, [&] { read_file(folder / "big", 4); }).find("5 bytes") != std::string::npos);
  CHECK(read_file(folder / "big", 5) == "12345");
}

TEST_CASE("remove_temporaries: takes away what a killed writer left and nothing else") {
  const TemporaryFolder folder;
  for (const char* name : {"a.123.tmp", "b.json.7.tmp", "mine.tmp", "a.x1.tmp", "a.123"})
    std::ofstream(folder / name) << "x";
  remove_temporaries(folder.path());
  CHECK_FALSE(fs::exists(folder / "a.123.tmp"));
  CHECK_FALSE(fs::exists(folder / "b.json.7.tmp"));
  CHECK(fs::exists(folder / "mine.tmp"));
  CHECK(fs::exists(folder / "a.x1.tmp"));
  CHECK(fs::exists(folder / "a.123"));
}
