// apps/diagnosis/counterfactual.cpp - see counterfactual.h.
#include "apps/diagnosis/counterfactual.h"

#include <algorithm>

#include "apps/diagnosis/borrowed_weights.h"

namespace eg {

void measure_restores(Trainer& trainer, const std::vector<double>& before, const std::function<double()>& accuracy,
                      Diagnosis& d) {
  check(std::int64_t(before.size()) == trainer.arena().size, Kind::shape, [&] {
    return cat("the weights from before the task are ", before.size(), " numbers, but this network has ",
               trainer.arena().size, "; both checkpoints must be of one run");
  });
  const BorrowedWeights borrowed(trainer);
  const std::vector<ModuleView> modules = block_modules(trainer.params());
  const double whole = accuracy();
  /// The drop when every module that `which` names is as it was before.
  const auto drop = [&](const std::function<bool(const ModuleView&)>& which) {
    std::vector<double> w = borrowed.values();
    for (const ModuleView& m : modules)
      if (which(m)) std::copy_n(before.begin() + m.offset(), m.size(), w.begin() + m.offset());
    borrowed.write(w);
    return whole - accuracy();
  };
  for (const ModuleView& m : modules) {
    auto& list = d.blocks["restore." + m.name() + ".drop"];
    list.resize(std::size_t(trainer.model().config.depth), 0.0);
    list[std::size_t(m.block)] =
        drop([&](const ModuleView& other) { return other.block == m.block && other.module == m.module; });
  }
  for (std::size_t i = 0; i < kModuleNames.size(); ++i)
    d.model[std::string("restore.") + kModuleNames[i] + ".drop"] = {
        drop([&](const ModuleView& m) { return m.module == int(i); })};
}

}  // namespace eg
