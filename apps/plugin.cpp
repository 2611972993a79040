// apps/plugin.cpp - see plugin.h.
#include "apps/plugin.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstring>
#include <filesystem>
#include <set>
#include <sstream>

#include "engine/build_info.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

namespace fs = std::filesystem;

/// The loader maps what the object's headers say without asking whether the file is that long, and a truncated copy ends
/// the process.
void check_complete(const fs::path& file) {
  const std::string bytes = read_file(file);
  const auto good = [&] {
    ElfW(Ehdr) head;
    if (bytes.size() < sizeof head || bytes.compare(0, SELFMAG, ELFMAG) != 0) return false;
    std::memcpy(&head, bytes.data(), sizeof head);
    if (head.e_phentsize != sizeof(ElfW(Phdr)) || head.e_phoff > bytes.size()) return false;
    // The table of sections is the last thing in the file.
    if (head.e_shoff > bytes.size() || std::size_t(head.e_shnum) * head.e_shentsize > bytes.size() - head.e_shoff)
      return false;
    if (std::size_t(head.e_phnum) * sizeof(ElfW(Phdr)) > bytes.size() - head.e_phoff) return false;
    for (std::size_t i = 0; i < head.e_phnum; ++i) {
      ElfW(Phdr) part;
      std::memcpy(&part, bytes.data() + head.e_phoff + i * sizeof part, sizeof part);
      if (part.p_offset > bytes.size() || part.p_filesz > bytes.size() - part.p_offset) return false;
    }
    return true;
  };
  check(good(), Kind::format, [&] {
    return cat("--plugin ", file.string(), " (", bytes.size(),
               " bytes) is not a complete shared object; compile or copy it again");
  });
}

void* open_object(const fs::path& file, int mode) {
  void* const object = ::dlopen(file.c_str(), mode | RTLD_LOCAL);
  check(object != nullptr, Kind::io, [&] {
    const char* const why = ::dlerror();
    return cat("--plugin ", file.string(), " cannot be loaded: ", why ? why : "unknown reason",
               ". Compile it as a shared object against the headers of this build (", build_info().abi, ")");
  });
  return object;
}

/// The tag is read before any function is bound: an object of another build may lack some of this binary's.
void* open_checked(const fs::path& file) {
  check_complete(file);
  void* const object = open_object(file, RTLD_LAZY);
  const auto* const tag = static_cast<const char*>(::dlsym(object, "evergrad_plugin_abi"));
  check(tag != nullptr, Kind::format, [&] {
    return cat(
        "--plugin ", file.string(),
        " is a shared object, but not a plugin of evergrad; it must say EVERGRAD_PLUGIN { ... } (optim/plugin.h)");
  });
  const std::string own = build_info().abi;
  check(own == tag, Kind::format, [&] {
    return cat("--plugin ", file.string(), " was compiled for another build: it has '", tag, "', this binary '", own,
               "'. Compile it again with the headers and the compiler of this binary");
  });
  return open_object(file, RTLD_NOW);  // from here on a function that is missing is an error, not a crash later
}

void load(const fs::path& file) {
  void* const object = open_checked(file);
  const auto register_methods = reinterpret_cast<void (*)()>(::dlsym(object, "evergrad_plugin_register"));
  check(register_methods != nullptr, Kind::format,
        [&] { return cat("--plugin ", file.string(), " has no function evergrad_plugin_register (optim/plugin.h)"); });
  try {
    register_methods();
  } catch (const Error& e) { fail(e.kind, cat("--plugin ", file.string(), ": ", e.what())); }
}

}  // namespace

std::string load_plugins(const std::string& files) {
  static std::set<fs::path> loaded;
  std::string paths;
  std::istringstream in(files);
  for (std::string given; std::getline(in, given, ',');) {
    if (given.empty()) continue;
    std::error_code error;
    const fs::path file = fs::canonical(given, error);
    check(!error && fs::is_regular_file(file, error), Kind::io,
          [&] { return cat("--plugin ", given, ": there is no such file; give the path of a shared object"); });
    if (!loaded.contains(file)) load(file);
    loaded.insert(file);
    paths += cat(paths.empty() ? "" : ",", file.string());
  }
  return paths;
}

}  // namespace eg
