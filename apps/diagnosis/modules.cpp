// apps/diagnosis/modules.cpp - see modules.h.
#include "apps/diagnosis/modules.h"

#include <algorithm>

namespace eg {

std::vector<ModuleView> block_modules(std::span<Param* const> params) {
  std::vector<ModuleView> all;
  const auto add = [&](const Param& p, int module, std::int64_t part, std::int64_t parts) {
    const std::int64_t rows = p.shape[0] / parts;
    all.push_back({&p, p.block, module, part * rows, rows, p.shape[1]});
  };
  for (const Param* p : params) {
    if (p->block < 0 || p->role != Role::weight || p->shape.rank() != 2) continue;
    if (p->module == Module::qkv)
      for (int part = 0; part < 3; ++part) add(*p, part, part, 3);
    if (p->module == Module::proj) add(*p, 3, 0, 1);
    if (p->module == Module::fc1) add(*p, 4, 0, 1);
    if (p->module == Module::fc2) add(*p, 5, 0, 1);
  }
  std::stable_sort(all.begin(), all.end(), [](const ModuleView& a, const ModuleView& b) {
    return a.block != b.block ? a.block < b.block : a.module < b.module;
  });
  return all;
}

}  // namespace eg
