// apps/diagnosis/fragility.cpp - what it takes to break a network: noise, pruning and quantisation of all its block
// matrices, and of those that are suspected to matter most.
#include <array>
#include <functional>

#include "apps/diagnosis/borrowed_weights.h"
#include "apps/diagnosis/diagnosis.h"
#include "apps/diagnosis/robustness.h"

namespace eg {
namespace {

using Which = std::function<bool(const ModuleView&)>;
/// Changes the values of one matrix at a level of harm.
using Harm = std::function<void(std::span<double>, const ModuleView&, double)>;

struct HarmKind {
  const char* name;
  std::vector<double> levels;  // the first one harms nothing that counts
  Harm harm;
};

std::vector<HarmKind> kinds_of_harm(std::uint64_t seed) {
  return {{"noise",
           {0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4},
           [seed](std::span<double> w, const ModuleView& m, double level) {
             add_weight_noise(w, level, seed, cat("noise/", m.block, ".", m.name()), 0);
           }},
          {"pruning",
           {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9},
           [](std::span<double> w, const ModuleView&, double level) { prune_smallest(w, level); }},
          {"quantisation", {16, 8, 6, 5, 4, 3}, [](std::span<double> w, const ModuleView& m, double level) {
             quantise_rows(w, m.rows, int(level));
           }}};
}

}  // namespace

void measure_fragility(Trainer& trainer, const std::function<double()>& accuracy, double chance, Diagnosis& d) {
  const BorrowedWeights borrowed(trainer);
  const std::vector<ModuleView> modules = block_modules(trainer.params());
  const double whole = accuracy();
  const int last = trainer.model().config.depth - 1;
  const std::vector<std::pair<std::string, Which>> parts = {
      {"", [](const ModuleView&) { return true; }},
      {".v", [](const ModuleView& m) { return m.name() == "v"; }},
      {".ffn", [](const ModuleView& m) { return m.name() == "fc1" || m.name() == "fc2"; }},
      {".last_block", [last](const ModuleView& m) { return m.block == last; }}};
  for (const auto& part : parts)
    for (const HarmKind& kind : kinds_of_harm(trainer.seed())) {
      std::vector<double> found{whole};
      for (std::size_t i = 1; i < kind.levels.size(); ++i) {
        std::vector<double> w = borrowed.values();
        for (const ModuleView& m : modules)
          if (part.second(m))
            kind.harm(std::span(w).subspan(std::size_t(m.offset()), std::size_t(m.size())), m, kind.levels[i]);
        borrowed.write(w);
        found.push_back(accuracy());
      }
      d.model[std::string("robustness.") + kind.name + part.first] = {robust_area(kind.levels, found, chance)};
      d.model[std::string("robust_level.") + kind.name + part.first] = {robust_level(kind.levels, found, chance)};
    }
}

}  // namespace eg
