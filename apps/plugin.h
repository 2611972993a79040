// apps/plugin.h - takes up methods from shared objects (optim/plugin.h): `evergrad continual --plugin ./libmine.so`.
#pragma once
#include <string>

namespace eg {

/// Loads the shared objects of a comma-separated list, each once per process, and registers their methods. They stay
/// loaded until the process ends. Returns the list with absolute paths, which is what config.toml keeps. Throws
/// Error{io} for a file that cannot be loaded, Error{format} for one that is no plugin or one of another build, and
/// Error{usage} when a name is taken; each names the file.
std::string load_plugins(const std::string& files);

}  // namespace eg
