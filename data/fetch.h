// data/fetch.h - downloads of published data sets: resumed, verified, then renamed into place.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace eg {

struct RemoteFile {
  std::string url;
  std::string sum;  // 32 digits: MD5, 64 digits: SHA-256
  std::string file_name() const { return url.substr(url.rfind('/') + 1); }
};
struct RemoteSet {
  std::string name, what, kind;  // kind: how open_dataset reads it
  std::vector<RemoteFile> files;
  std::string folder;  // what unpacking creates below DIR; "" for files used as they are
};
const std::vector<RemoteSet>& remote_sets();
/// Throws Error{usage} listing what exists.
const RemoteSet& remote_set(const std::string& name);

/// False when the build lacks libcurl: fetch then throws Error{usage} with addresses to download by hand.
bool can_fetch();

using Progress = std::function<void(const std::string& file, std::int64_t done, std::int64_t total)>;

/// Downloads url to target through target + ".part". An existing .part is continued with an HTTP range; a target that
/// already has the right sum is left alone. A wrong sum removes the .part (a second fetch starts anew).
/// Throws Error{io} (network, HTTP status, disk) keeping the .part, Error{format} (wrong sum).
void fetch_file(const RemoteFile& file, const std::filesystem::path& target, const Progress& progress = {});

/// All files of a set into dir, unpacked where they are archives. base_url replaces everything before the file names.
void fetch_set(const RemoteSet& set, const std::filesystem::path& dir, const std::string& base_url = "",
               const Progress& progress = {});

/// Inflates a whole gzip stream (also several members). Throws Error{format} when damaged, truncated, or longer than
/// max_bytes; Error{usage} in a build without zlib. `what` names the source in messages.
std::string gunzip(std::string_view bytes, std::uint64_t max_bytes, const std::string& what);

/// Unpacks the regular files and folders of a (gzip-compressed) ustar archive below dir. Absolute names, "..", links
/// and special files are refused with Error{format} before anything of that entry is written. Returns the files
/// written.
std::vector<std::filesystem::path> unpack_tar(std::string_view tar, const std::filesystem::path& dir,
                                              const std::string& what);

}  // namespace eg
