// tests/engine/temporary_folder.h - folders for tests that write files: plain ones, and small file systems that can be
// full or read-only (needs root; without it the test says that it was skipped).
#pragma once
#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/mount.h>

#include <filesystem>
#include <string>

#include "engine/error.h"

namespace eg {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "evergrad_test_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// A file system in memory of the given size ("64k"). False when mounting is not permitted.
class MountedFolder {
 public:
  explicit MountedFolder(const std::string& size) {
    mounted_ = ::mount("evergrad_test", folder_.path().c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
    if (!mounted_) MESSAGE("SKIPPED: mounting a small file system needs root");
  }
  ~MountedFolder() {
    if (mounted_) ::umount2(folder_.path().c_str(), MNT_DETACH);
  }
  MountedFolder(const MountedFolder&) = delete;
  MountedFolder& operator=(const MountedFolder&) = delete;
  explicit operator bool() const { return mounted_; }
  const std::filesystem::path& path() const { return folder_.path(); }
  void make_read_only() const {
    REQUIRE(::mount(nullptr, folder_.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0);
  }

 private:
  TemporaryFolder folder_;
  bool mounted_ = false;
};

/// The text of the Error of that kind which f must throw.
template <class F>
std::string error_text(Kind kind, F&& f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK_MESSAGE(e.kind == kind, cat("expected ", to_string(kind), ", got ", to_string(e.kind), ": ", e.what()));
    return e.what();
  }
  FAIL_CHECK(cat("expected an error of kind ", to_string(kind)));
  return "";
}

}  // namespace eg
