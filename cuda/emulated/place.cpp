// cuda/emulated/place.cpp - see place.h. Runs only when an error is told, so a slow way is good enough.
#include "cuda/emulated/place.h"

#include <link.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstring>

#include "engine/error.h"

namespace eg::emulated {
namespace {

std::uintptr_t load_bias() {
  static const std::uintptr_t bias = [] {
    std::uintptr_t found = 0;
    // The first object is the program itself.
    ::dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* out) {
          *static_cast<std::uintptr_t*>(out) = info->dlpi_addr;
          return 1;
        },
        &found);
    return found;
  }();
  return bias;
}

std::string program() {
  char path[PATH_MAX];
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path - 1);
  return n > 0 ? std::string(path, std::size_t(n)) : std::string();
}

}  // namespace

std::uint32_t code_of(const void* return_address) {
  return std::uint32_t(reinterpret_cast<std::uintptr_t>(return_address) - load_bias());
}

std::string place_of(std::uint32_t code) {
  char address[32];
  std::snprintf(address, sizeof address, "0x%x", code - 1);  // the call stands before the address it returns to
  const std::string path = program();
  if (path.find('\'') == std::string::npos) {
    std::FILE* const pipe = ::popen(cat("addr2line -i -s -e '", path, "' ", address, " 2>/dev/null").c_str(), "r");
    std::string text;
    char line[512];
    for (int level = 0; pipe && std::fgets(line, sizeof line, pipe); ++level) {
      line[std::strcspn(line, " \n")] = 0;
      if (line[0] != '?' && level < 4) text += cat(text.empty() ? "" : " in ", line);
    }
    if (pipe) ::pclose(pipe);
    if (!text.empty()) return text;
  }
  return cat("program address ", address, " (addr2line -i -e ", path, " ", address, " names the line)");
}

}  // namespace eg::emulated
