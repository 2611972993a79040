// apps/diagnosis/counterfactual.cpp - see counterfactual.h.
#include "apps/diagnosis/counterfactual.h"

#include <algorithm>
#include <cmath>

#include "apps/diagnosis/borrowed_weights.h"

namespace eg {

namespace {

void check_fits(const Trainer& trainer, const std::vector<double>& before) {
  check(std::int64_t(before.size()) == trainer.arena().size, Kind::shape, [&] {
    return cat("the weights from before the task are ", before.size(), " numbers, but this network has ",
               trainer.arena().size, "; both checkpoints must be of one run");
  });
}

}  // namespace

void measure_restores(Trainer& trainer, const std::vector<double>& before, const std::function<double()>& accuracy,
                      Diagnosis& d) {
  check_fits(trainer, before);
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

void measure_frozen(Trainer& trainer, const std::vector<double>& before, const Learn& learn,
                    const std::function<double()>& accuracy, const std::function<void(const std::string&)>& say,
                    Diagnosis& d) {
  check_fits(trainer, before);
  const Tensor& master = trainer.arena().master;
  const Tensor start = Tensor::from(before, master.shape(), master.dtype(), master.device());
  const std::vector<ModuleView> modules = block_modules(trainer.params());
  /// Accuracy after learning with what `held` names as it was; an update moves it, and it is put back at once.
  const auto learned = [&](const std::string& what, const std::function<bool(const ModuleView&)>& held) {
    say(what);
    const auto put_back = [&](std::int64_t offset, std::int64_t size) {
      master.slice(offset, size).copy_from(start.slice(offset, size));
    };
    try {
      learn([&] { put_back(0, trainer.arena().size), trainer.arena().refresh_work(); },
            [&] {
              for (const ModuleView& m : modules)
                if (held(m)) put_back(m.offset(), m.size());
              trainer.arena().refresh_work();
            });
      return accuracy();
    } catch (const Diverged&) { return std::nan(""); }
  };
  const double whole = learned("with nothing held", [](const ModuleView&) { return false; });
  d.model["frozen.none.accuracy"] = {whole};
  for (std::size_t i = 0; i < kModuleNames.size(); ++i)
    d.model[std::string("frozen.") + kModuleNames[i] + ".drop"] = {
        whole - learned(cat(kModuleNames[i], " held"), [&](const ModuleView& m) { return m.module == int(i); })};
  std::vector<double>& blocks = d.blocks["frozen.block.drop"];
  for (int b = 0; b < trainer.model().config.depth; ++b)
    blocks.push_back(whole - learned(cat("block ", b, " held"), [&](const ModuleView& m) { return m.block == b; }));
}

}  // namespace eg
