// engine/build_info.cpp - the answers CMake wrote into this file's compile definitions.
#include "engine/build_info.h"

#include <sstream>

#include "engine/abi.h"

namespace eg {
namespace {
std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line, '|');)
    if (!line.empty()) lines.push_back(line);
  return lines;
}
}  // namespace

BuildInfo build_info() {
  BuildInfo info;
  info.version = EVERGRAD_VERSION;
  info.abi = EVERGRAD_ABI;
  info.build_type = EVERGRAD_BUILD_TYPE;
  info.sanitizers = EVERGRAD_SANITIZE;
#if defined(__clang__)
  info.compiler = "clang " __clang_version__;
#else
  info.compiler = "g++ " __VERSION__;
#endif
  info.with = split(EVERGRAD_WITH);
  info.without = split(EVERGRAD_WITHOUT);
  return info;
}

}  // namespace eg
