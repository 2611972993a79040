// apps/run/run_folder.h - the folder that one run owns: nobody's files are overwritten, no two processes write at once.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "engine/file.h"

namespace eg {

class RunFolder {
 public:
  /// Creates or opens the folder given by --out and locks it for this process until the object dies (flock on the file
  /// .lock, so the lock of a killed process is gone at once).
  /// Throws Error{usage}: the folder holds files and resume is false; resume is true and the files are not those of a
  /// run; another live process writes there (with its pid and host). Throws Error{io}: it cannot be created or written.
  static RunFolder open(const std::filesystem::path& folder, bool resume);
  /// The folder that another rank of the same run has opened: to read from. `continues` is what open() found there.
  static RunFolder join(const std::filesystem::path& folder, bool continues);
  RunFolder(RunFolder&&) = default;
  RunFolder& operator=(RunFolder&&) = default;
  ~RunFolder();

  const std::filesystem::path& path() const { return folder_; }
  /// True when the folder holds the config.toml of an earlier start, which this run continues.
  bool continues() const { return continues_; }
  std::filesystem::path config() const { return folder_ / "config.toml"; }
  std::filesystem::path metrics() const { return folder_ / "metrics.jsonl"; }
  std::filesystem::path summary() const { return folder_ / "summary.json"; }
  std::filesystem::path checkpoints() const { return folder_ / "checkpoints"; }

 private:
  RunFolder(std::filesystem::path folder, FileHandle lock) : folder_(std::move(folder)), lock_(std::move(lock)) {}
  std::filesystem::path folder_;
  FileHandle lock_;
  bool continues_ = false;
};

/// "adamw:lr=0.1", 3 as "adamw_lr=0.1-seed3": a name that file systems and shells take without quotes.
std::string run_name(const std::string& method, std::uint64_t seed);

/// Writes JSON, indented by two, atomically. A number that is not finite becomes null. Throws Error{io}.
void write_json(const std::filesystem::path& path, const nlohmann::json& json);

/// Throws Error{usage} when a result is to be written over a file by which a run lives: its configuration, its records, or
/// anything in its checkpoints.
void check_no_file_of_a_run(const std::filesystem::path& file);

}  // namespace eg
