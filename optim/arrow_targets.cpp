// optim/arrow_targets.cpp - see arrow_targets.h.
#include "optim/arrow_targets.h"

#include <algorithm>

namespace eg {
namespace {

bool chosen(const ArrowSettings& s, int block) { return std::binary_search(s.blocks.begin(), s.blocks.end(), block); }

/// Appends what of one parameter belongs to ARROW.
void add_runs(const ArrowSettings& s, const Param& p, std::vector<ArrowRun>& out) {
  const bool matrix = p.shape.rank() == 2;
  if (p.frozen || !chosen(s, p.block) || (!matrix && !s.biases)) return;
  const std::string suffix = matrix ? ".weight" : ".bias";
  const std::string stem = p.name.substr(0, p.name.rfind('.'));
  if (p.module == Module::qkv) {
    const std::int64_t third = p.size() / 3;
    for (int k = 0; k < 3; ++k)
      if (s.tensors.find("qkv"[k]) != std::string::npos && (matrix || k != 1))
        out.push_back({cat(stem, ".", "qkv"[k], suffix), p.offset + k * third, third, p.block, k, p.decays});
  } else if (p.module == Module::proj && s.tensors.find('o') != std::string::npos) {
    out.push_back({p.name, p.offset, p.size(), p.block, 3, p.decays});
  } else if (s.mlp && (p.module == Module::fc1 || p.module == Module::fc2)) {
    out.push_back({p.name, p.offset, p.size(), p.block, p.module == Module::fc1 ? 4 : 5, p.decays});
  }
}

}  // namespace

std::vector<ArrowRun> arrow_runs(const ArrowSettings& s, const Parameters& p) {
  std::vector<ArrowRun> runs;
  for (const Param* param : p.list) add_runs(s, *param, runs);
  check(!runs.empty(), Kind::usage, [&] {
    return cat("arrow: blocks and tensors=", s.tensors, " leave nothing to update; are those parameters frozen?");
  });
  return runs;
}

std::string arrow_group(const ArrowSettings& s, const ArrowRun& t) {
  static const char* const kModules[] = {"q", "k", "v", "o", "fc1", "fc2"};
  if (s.grouping == ArrowGrouping::tensor) return t.name;
  if (s.grouping == ArrowGrouping::module) return cat("block", t.block, ".", kModules[t.module]);
  return s.grouping == ArrowGrouping::block ? cat("block", t.block) : "all";
}

std::vector<Segment> without(const std::vector<Segment>& segments, std::vector<ArrowRun> runs) {
  std::sort(runs.begin(), runs.end(), [](const ArrowRun& a, const ArrowRun& b) { return a.begin < b.begin; });
  std::vector<Segment> rest;
  for (Segment s : segments) {
    for (const ArrowRun& r : runs) {
      if (r.begin + r.size <= s.begin || r.begin >= s.end) continue;
      if (r.begin > s.begin) {
        Segment before = s;
        before.end = r.begin;
        rest.push_back(before);
      }
      s.begin = r.begin + r.size;
    }
    if (s.begin < s.end) rest.push_back(s);
  }
  return rest;
}

}  // namespace eg
