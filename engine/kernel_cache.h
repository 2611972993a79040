// engine/kernel_cache.h - measured kernel choices on disk, so that the next run on the same machine need not measure.
//
// One text file per identity (card, driver, libraries, version): a line for each call, and a checksum at the end. The file is
// replaced as a whole, so that several runs may share a folder; whoever writes takes over what others have added.
#pragma once
#include <filesystem>
#include <map>
#include <string>

namespace eg {

struct CachedChoices {
  std::map<std::string, std::string> chosen;  // call -> implementation
  std::string damage;                         // why a file that is there was not used; empty: all is well
};
/// $EVERGRAD_CACHE, else $XDG_CACHE_HOME/evergrad, else ~/.cache/evergrad; empty where there is no home.
std::filesystem::path cache_folder();
std::filesystem::path kernel_cache_file(const std::filesystem::path& folder, const std::string& identity);
/// Never throws for what is in the file: a damaged one counts as empty.
CachedChoices read_kernel_cache(const std::filesystem::path& folder, const std::string& identity);
/// Adds one choice. Throws Error{io}.
void add_to_kernel_cache(const std::filesystem::path& folder, const std::string& identity, const std::string& call,
                         const std::string& chosen);

}  // namespace eg
