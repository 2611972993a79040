// apps/report/names.h - what a chart calls the methods of one comparison.
#pragma once
#include <string>
#include <vector>

namespace eg::report {

/// Method texts without the settings in which those of the same name agree: {"adamw:lr=1e-4+nap", "sgd:lr=0.1"} are
/// "adamw+nap" and "sgd"; {"adamw:lr=1e-4:wd=0", "adamw:lr=1e-3:wd=0"} are "adamw:lr=1e-4" and "adamw:lr=1e-3". Different
/// texts stay different.
std::vector<std::string> short_names(const std::vector<std::string>& methods);

}  // namespace eg::report
