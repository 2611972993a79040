// apps/embedded.h - files that live inside the binary: the report's page, the recipes.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace eg {

/// The contents of a file by its name below apps/ ("report/page.js", "recipes/first.toml"), or of "d3.min.js". Empty
/// when this build does not have it.
std::string_view embedded(std::string_view name);
/// Names that begin with `prefix`, sorted.
std::vector<std::string> embedded_names(std::string_view prefix);

}  // namespace eg
