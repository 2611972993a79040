// engine/kernel_cache.cpp - see kernel_cache.h.
#include "engine/kernel_cache.h"

#include <cstdlib>
#include <sstream>

#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t(4) << 20;
constexpr const char *kHead = "evergrad kernel choices 1\n", *kSum = "checksum ";

std::string sum_of(const std::string& text) {
  return checksum_text(checksum_of(std::as_bytes(std::span(text.data(), text.size()))));
}

/// The lines between head and checksum, or why not.
std::string body_of(const std::string& text, const std::string& head, std::string* damage) {
  const std::size_t at = text.rfind(kSum);
  if (!text.starts_with(head) || at == std::string::npos || at < head.size())
    *damage = "it is not a list of kernel choices of this device";
  else if (text.substr(at) != kSum + sum_of(text.substr(0, at)) + "\n")
    *damage = "its checksum does not fit its content";
  return damage->empty() ? text.substr(head.size(), at - head.size()) : std::string();
}

}  // namespace

std::filesystem::path cache_folder() {
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);
    return std::filesystem::path(value ? value : "");
  };
  if (const auto own = variable("EVERGRAD_CACHE"); !own.empty()) return own;
  if (const auto shared = variable("XDG_CACHE_HOME"); !shared.empty()) return shared / "evergrad";
  const auto home = variable("HOME");
  return home.empty() ? home : home / ".cache" / "evergrad";
}

std::filesystem::path kernel_cache_file(const std::filesystem::path& folder, const std::string& identity) {
  return folder / cat("kernels-", sum_of(identity), ".txt");
}

CachedChoices read_kernel_cache(const std::filesystem::path& folder, const std::string& identity) {
  CachedChoices found;
  const std::filesystem::path file = kernel_cache_file(folder, identity);
  std::error_code error;
  if (folder.empty() || !std::filesystem::exists(file, error)) return found;
  try {
    std::istringstream lines(body_of(read_file(file, kMostBytes), cat(kHead, identity, '\n'), &found.damage));
    for (std::string line; std::getline(lines, line);)
      if (const std::size_t tab = line.find('\t'); tab != std::string::npos)
        found.chosen[line.substr(0, tab)] = line.substr(tab + 1);
  } catch (const Error& e) { found.damage = e.what(); }
  if (!found.damage.empty()) found.damage = cat(file.string(), ": ", found.damage);
  return found;
}

void add_to_kernel_cache(const std::filesystem::path& folder, const std::string& identity, const std::string& call,
                         const std::string& chosen) {
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);  // where that fails, writing says why
  CachedChoices all = read_kernel_cache(folder, identity);
  all.chosen[call] = chosen;
  std::string text = cat(kHead, identity, '\n');
  for (const auto& [key, name] : all.chosen) text += cat(key, '\t', name, '\n');
  write_file(kernel_cache_file(folder, identity), text + kSum + sum_of(text) + "\n");
}

}  // namespace eg
