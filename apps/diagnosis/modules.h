// apps/diagnosis/modules.h - the six matrices of a transformer block, one by one: q, k, v, out, fc1, fc2. The fused
// projection's thirds are modules of their own, because they age differently.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "layers/param.h"

namespace eg {

constexpr std::array<const char*, 6> kModuleNames = {"q", "k", "v", "out", "fc1", "fc2"};

/// Rows [row, row + rows) of a parameter.
struct ModuleView {
  const Param* param = nullptr;
  int block = 0, module = 0;  // module: index into kModuleNames
  std::int64_t row = 0, rows = 0, cols = 0;
  std::int64_t size() const { return rows * cols; }
  /// Its first element in the flat arenas.
  std::int64_t offset() const { return param->offset + row * cols; }
  std::string name() const { return kModuleNames[std::size_t(module)]; }
};

/// Block by block, in the order of kModuleNames.
std::vector<ModuleView> block_modules(std::span<Param* const> params);

}  // namespace eg
