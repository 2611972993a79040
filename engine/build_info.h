// engine/build_info.h - what this binary was built with: version, build type, libraries found and missing.
#pragma once
#include <string>
#include <vector>

namespace eg {

/// What `evergrad info` says of the build.
struct BuildInfo {
  std::string version, build_type, sanitizers, compiler;
  std::string abi;                   // engine/abi.h: what a plugin of this build must be equal in
  std::vector<std::string> with;     // "OpenBLAS: fp32 matrix products"
  std::vector<std::string> without;  // "libcurl: evergrad data fetch is absent: ..."
};
BuildInfo build_info();

}  // namespace eg
