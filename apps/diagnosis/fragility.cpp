// apps/diagnosis/fragility.cpp - what it takes to break a network: noise, pruning and quantisation of all its block
// matrices, and of those that are suspected to matter most; the loss of whole units and heads, the least useful first.
#include <array>
#include <functional>
#include <numeric>

#include "apps/diagnosis/borrowed_weights.h"
#include "apps/diagnosis/contribution.h"
#include "apps/diagnosis/diagnosis.h"
#include "apps/diagnosis/robustness.h"

namespace eg {
namespace {

using Modules = std::vector<ModuleView>;

/// Changes the weights of some matrices (w: all of them, laid out as the arena) at a level of harm.
using Harm = std::function<void(std::span<double> w, const Modules& harmed, double level, std::uint32_t draw)>;

struct HarmKind {
  const char* name;
  std::vector<double> levels;  // the first one harms nothing that counts
  std::uint32_t draws;         // accuracy is the mean over so many
  bool whole_blocks;           // takes matrices of a block together, so that there is none of V alone
  Harm harm;
};

std::span<double> values_of(std::span<double> w, const ModuleView& m) {
  return w.subspan(std::size_t(m.offset()), std::size_t(m.size()));
}

/// Sets columns [first, first + count) of a matrix to zero.
void silence(std::span<double> w, const ModuleView& m, std::int64_t first, std::int64_t count) {
  for (std::int64_t r = 0; r < m.rows; ++r)
    for (std::int64_t c = first; c < first + count; ++c) w[std::size_t(m.offset() + r * m.cols + c)] = 0.0;
}

/// Takes `share` of what a matrix reads away, in groups of equal width, the least useful first.
void silence_least(std::span<double> w, const ModuleView& m, const std::vector<double>& utility, double share) {
  std::vector<std::size_t> order(utility.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return utility[a] < utility[b]; });
  const std::int64_t width = m.cols / std::int64_t(utility.size());
  order.resize(std::size_t(std::llround(share * double(utility.size()))));
  for (const std::size_t group : order) silence(w, m, std::int64_t(group) * width, width);
}

/// 0, 1/n, ... below 1 for a few, in tenths for many.
std::vector<double> shares_of(std::size_t n) {
  const std::size_t steps = std::min<std::size_t>(n, 10);
  std::vector<double> shares;
  for (std::size_t i = 0; i < steps; ++i) shares.push_back(double(i) / double(steps));
  return shares;
}

std::vector<HarmKind> kinds_of_harm(std::uint64_t seed, const Contribution& useful) {
  const std::vector<double> tenths = shares_of(10);
  const auto each = [](auto change) {
    return [change](std::span<double> w, const Modules& harmed, double level, std::uint32_t draw) {
      for (const ModuleView& m : harmed) change(w, m, level, draw);
    };
  };
  return {
      {"noise",
       {0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4},
       5,
       false,
       each([seed](std::span<double> w, const ModuleView& m, double level, std::uint32_t draw) {
         add_weight_noise(values_of(w, m), level, seed, cat("noise/", m.block, ".", m.name()), draw);
       })},
      {"pruning", tenths, 1, false, each([](std::span<double> w, const ModuleView& m, double level, std::uint32_t) {
         prune_smallest(values_of(w, m), level);
       })},
      {"global_pruning", tenths, 1, true,  // one threshold for all matrices
       [](std::span<double> w, const Modules& harmed, double level, std::uint32_t) {
         std::vector<double> all;
         for (const ModuleView& m : harmed) all.insert(all.end(), values_of(w, m).begin(), values_of(w, m).end());
         prune_smallest(all, level);
         std::size_t at = 0;
         for (const ModuleView& m : harmed)
           for (double& x : values_of(w, m)) x = all[at++];
       }},
      {"units", tenths, 1, true, each([&useful](std::span<double> w, const ModuleView& m, double level, std::uint32_t) {
         if (m.name() == "fc2") silence_least(w, m, useful.units[std::size_t(m.block)], level);
       })},
      {"heads", shares_of(useful.heads[0].size()), 1, true,
       each([&useful](std::span<double> w, const ModuleView& m, double level, std::uint32_t) {
         if (m.name() == "out") silence_least(w, m, useful.heads[std::size_t(m.block)], level);
       })},
      {"quantisation",
       {16, 8, 6, 5, 4, 3},
       1,
       false,
       each([](std::span<double> w, const ModuleView& m, double level, std::uint32_t) {
         quantise_rows(values_of(w, m), m.rows, int(level));
       })}};
}

}  // namespace

void measure_fragility(Trainer& trainer, Loader& images, const std::function<double()>& accuracy, double chance,
                       Diagnosis& d) {
  const Contribution useful = measure_contribution(trainer, images);
  const BorrowedWeights borrowed(trainer);
  const double whole = accuracy();
  const int last = trainer.model().config.depth - 1;
  struct Part {
    const char* name;
    bool whole_blocks;
    std::function<bool(const ModuleView&)> has;
  };
  const std::vector<Part> parts = {
      {"", true, [](const ModuleView&) { return true; }},
      {".v", false, [](const ModuleView& m) { return m.name() == "v"; }},
      {".ffn", false, [](const ModuleView& m) { return m.name() == "fc1" || m.name() == "fc2"; }},
      {".last_block", true, [last](const ModuleView& m) { return m.block == last; }}};
  const Modules modules = block_modules(trainer.params());
  for (const Part& part : parts) {
    Modules harmed;
    std::copy_if(modules.begin(), modules.end(), std::back_inserter(harmed), part.has);
    for (const HarmKind& kind : kinds_of_harm(trainer.seed(), useful)) {
      if ((kind.whole_blocks && !part.whole_blocks) || kind.levels.size() < 2) continue;  // no V alone; a single head
      std::vector<double> found{whole};
      for (std::size_t i = 1; i < kind.levels.size(); ++i) {
        double sum = 0.0;
        for (std::uint32_t draw = 0; draw < kind.draws; ++draw) {
          std::vector<double> w = borrowed.values();
          kind.harm(w, harmed, kind.levels[i], draw);
          borrowed.write(w);
          sum += accuracy();
        }
        found.push_back(sum / kind.draws);
      }
      d.model[std::string("robustness.") + kind.name + part.name] = {robust_area(kind.levels, found, chance)};
      d.model[std::string("robust_level.") + kind.name + part.name] = {robust_level(kind.levels, found, chance)};
    }
  }
}

}  // namespace eg
