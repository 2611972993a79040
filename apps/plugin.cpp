// apps/plugin.cpp - see plugin.h.
#include "apps/plugin.h"

#include <dlfcn.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "engine/build_info.h"
#include "engine/error.h"

namespace eg {
namespace {

namespace fs = std::filesystem;

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
    paths += (paths.empty() ? "" : ",") + file.string();
  }
  return paths;
}

}  // namespace eg
