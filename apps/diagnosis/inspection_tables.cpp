// apps/diagnosis/inspection_tables.cpp - see inspection_tables.h.
#include "apps/diagnosis/inspection_tables.h"

#include <algorithm>
#include <cmath>
#include <iostream>

#include "apps/run/table.h"

namespace eg {
namespace {

/// A quantity of a block, or a dash where it was not measured.
std::string cell(const Diagnosis& d, const std::string& name, int block, int decimals) {
  const auto at = d.blocks.find(name);
  if (at == d.blocks.end() || !std::isfinite(at->second[std::size_t(block)])) return "-";
  return fixed(at->second[std::size_t(block)], decimals);
}

std::string points(double drop) { return std::isfinite(drop) ? fixed(100 * drop, 1) : std::string("-"); }

}  // namespace

void print_blocks(const Diagnosis& d, int depth) {
  TextTable features(
      {"block", "token rank", "stable rank", "99% energy", "active %", "alive %", "dead %", "dormant %"});
  TextTable attention({"block", "entropy", "distance", "class self", "head similarity", "largest logit", "QK rank",
                       "OV rank", "drift from start", "CKA with start"});
  TextTable modules({"block", "module", "norm", "from start", "spectral norm", "rank", "stable rank", "gradient",
                     "grad cosine", "grad rank"});
  const auto percent = [&](const char* name, int b) {
    const auto at = d.blocks.find(name);
    return at == d.blocks.end() ? std::string("-") : fixed(100 * at->second[std::size_t(b)], 1);
  };
  for (int b = 0; b < depth; ++b) {
    const std::string block = std::to_string(b);
    features.add_row({block, cell(d, "tokens.effective_rank", b, 1), cell(d, "tokens.stable_rank", b, 2),
                      cell(d, "tokens.energy_rank", b, 0), percent("units.active", b), percent("units.alive", b),
                      percent("units.dead", b), percent("units.dormant", b)});
    attention.add_row({block, cell(d, "attention.entropy", b, 3), cell(d, "attention.distance", b, 2),
                       cell(d, "attention.class_self", b, 3), cell(d, "attention.head_similarity", b, 3),
                       cell(d, "attention.largest_logit", b, 1), cell(d, "circuit.qk.effective_rank", b, 1),
                       cell(d, "circuit.ov.effective_rank", b, 1), cell(d, "attention.drift_first", b, 4),
                       cell(d, "tokens.cka_first", b, 3)});
    for (const char* name : kModuleNames) {
      const std::string weight = std::string("weight.") + name, gradient = std::string("gradient.") + name;
      modules.add_row({block, name, cell(d, weight + ".norm", b, 2), cell(d, weight + ".from_start", b, 2),
                       cell(d, weight + ".spectral_norm", b, 2), cell(d, weight + ".effective_rank", b, 1),
                       cell(d, weight + ".stable_rank", b, 1), cell(d, gradient + ".norm", b, 4),
                       cell(d, gradient + ".cosine", b, 2), cell(d, gradient + ".effective_rank", b, 1)});
    }
  }
  std::cout << "Features and hidden units, after each block\n" << features.text() << '\n';
  std::cout << "Attention; start: the first network of this seed\n" << attention.text() << '\n';
  std::cout << "Matrices, and gradients of eight batches\n" << modules.text() << '\n';
}

void print_restores(const Diagnosis& d, int depth) {
  if (!d.blocks.contains("restore.q.drop")) return;
  std::vector<std::string> head{"block"};
  head.insert(head.end(), kModuleNames.begin(), kModuleNames.end());
  TextTable table(head);
  for (int b = 0; b <= depth; ++b) {
    std::vector<std::string> row{b < depth ? std::to_string(b) : "all"};
    for (const char* name : kModuleNames) {
      const std::string key = std::string("restore.") + name + ".drop";
      row.push_back(points(b < depth ? d.blocks.at(key)[std::size_t(b)] : d.model.at(key)[0]));
    }
    table.add_row(row);
  }
  std::cout << "Points of accuracy lost when a module is as it was before the task\n" << table.text() << '\n';
}

void print_frozen(const Diagnosis& d) {
  const auto blocks = d.blocks.find("frozen.block.drop");
  if (blocks == d.blocks.end()) return;
  TextTable table({"held fast", "accuracy lost"});
  for (const char* name : kModuleNames)
    table.add_row(
        {std::string(name) + " of all blocks", points(d.model.at(std::string("frozen.") + name + ".drop")[0])});
  for (std::size_t b = 0; b < blocks->second.size(); ++b)
    table.add_row({cat("block ", b, ", all six"), points(blocks->second[b])});
  std::cout << "Points of accuracy lost when the task is learned again with these matrices as they were before it ("
            << points(d.model.at("frozen.none.accuracy")[0]) << "% with nothing held)\n"
            << table.text() << '\n';
}

void print_probes(const Diagnosis& d, const std::vector<ProbedTask>& tasks) {
  const auto now = d.model.find("probe.accuracy"), first = d.model.find("probe.untrained_accuracy");
  if (now == d.model.end() || first == d.model.end() || tasks.empty()) return;
  TextTable table({"task", "name", "now %", "untrained network %"});
  for (std::size_t i = 0; i < tasks.size(); ++i)
    table.add_row({std::to_string(tasks[i].number), tasks[i].name, points(now->second[i]), points(first->second[i])});
  std::cout << "Accuracy of a linear classifier fitted to the features, heads aside\n" << table.text() << '\n';
}

void print_model(const Diagnosis& d) {
  TextTable table({"the whole network", "value"});
  const std::map<std::string, std::string> words = {
      {"features.effective_rank", "effective rank of what the head reads"},
      {"features.stable_rank", "stable rank of what the head reads"},
      {"features.srank", "directions that hold 99% of the singular values of what the head reads"},
      {"features.norm", "root mean square length of what the head reads"},
      {"accuracy", "accuracy on these images"},
      {"hessian.top", "largest eigenvalue of the loss's Hessian (- : did not converge, or bf16)"},
      {"hessian.trace", "trace of the Hessian (eight sign vectors)"},
      {"sharpness.sam", "growth of the loss on a step of length 0.05 uphill"},
      {"features.numerical_rank", "numerical rank of what the head reads, in fp32"},
      {"hessian.preconditioned_top",
       "largest eigenvalue of the Hessian as Adam sees it, each weight scaled by its step"},
      {"robustness.noise", "share of accuracy that survives weight noise (area)"},
      {"robustness.pruning", "share that survives magnitude pruning (area)"},
      {"robustness.global_pruning", "the same with one threshold for all matrices"},
      {"robustness.units", "share that survives the loss of hidden units, the least useful first (area)"},
      {"robustness.heads", "share that survives the loss of heads, the least useful first (area)"},
      {"robustness.quantisation", "share that survives quantisation to 16..3 bits (area)"}};
  for (const auto& [name, values] : d.model) {
    if (name.starts_with("restore.") || name.starts_with("frozen.") || name.starts_with("probe."))
      continue;                                       // tables of their own
    if (name.starts_with("robust_level.")) continue;  // in the file
    // "robustness.noise.v": the sentence of "robustness.noise", and what alone was harmed.
    const std::size_t dot = name.starts_with("robustness.") ? name.find('.', 11) : std::string::npos;
    const auto at = words.find(name.substr(0, dot));
    std::string text = at == words.end() ? name : at->second;
    if (dot != std::string::npos) text += ", " + name.substr(dot + 1) + " alone";
    std::replace(text.begin(), text.end(), '_', ' ');
    table.add_row({text, std::isfinite(values[0]) ? fixed(values[0], 3) : "-"});
  }
  std::cout << table.text();
}

}  // namespace eg
