// optim/plasticity/selection.cpp - see selection.h.
#include "optim/plasticity/selection.h"

#include <charconv>
#include <cmath>

namespace eg {

std::vector<int> read_blocks(OptionReader& r, const std::string& key, const std::string& otherwise, int depth,
                             const std::string& method) {
  const std::string text = r.text(key, otherwise);
  const auto number = [&](std::string_view part) {
    int value = -1;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    check(error == std::errc{} && end == part.data() + part.size() && value >= 0, Kind::usage, [&] {
      return cat(method, ": ", key, "=", text, " must be all, none, last:N or a list of block numbers like 0,3");
    });
    return value;
  };
  std::vector<int> blocks;
  if (text == "none") return blocks;
  if (text == "all" || text.starts_with("last-")) {
    const int count = text == "all" ? depth : std::min(depth, number(std::string_view(text).substr(5)));
    for (int b = depth - count; b < depth; ++b) blocks.push_back(b);
    return blocks;
  }
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t plus = std::min(rest.find('+'), rest.size());
    const int block = number(rest.substr(0, plus));
    check(block < depth, Kind::usage, [&] {
      return cat(method, ": ", key, "=", text, " names block ", block, ", but the model has blocks 0 to ", depth - 1);
    });
    blocks.push_back(block);
    rest.remove_prefix(std::min(plus + 1, rest.size()));
  }
  return blocks;
}

std::vector<WeightSegment> weight_segments(const Parameters& p,
                                           const std::function<bool(const Param&, WeightSegment&)>& fill) {
  std::vector<WeightSegment> all;
  for (const Param* param : p.list) {
    WeightSegment s;
    s.begin = param->offset, s.end = param->offset + param->size();
    if (!param->frozen && fill(*param, s)) all.push_back(s);
  }
  return all;
}

std::vector<std::vector<WeightSegment>> weight_segments_by_group(
    const Parameters& p, const std::function<bool(const Param&, WeightSegment&)>& fill) {
  std::vector<std::vector<WeightSegment>> all(std::size_t(p.depth) + 1);
  for (int group = 0; group <= p.depth; ++group)
    all[std::size_t(group)] = weight_segments(p, [&](const Param& param, WeightSegment& s) {
      return (param.block < 0 ? p.depth : param.block) == group && fill(param, s);
    });
  return all;
}

Moments moments_of(const Init& init) {
  switch (init.rule) {
    case Init::Rule::zeros: return {};
    case Init::Rule::ones: return {1.0, 0.0};
    case Init::Rule::constant: return {init.scale, 0.0};
    // The cut at +-2 in absolute value takes nothing from a standard deviation of a few hundredths.
    case Init::Rule::normal:
    case Init::Rule::trunc_normal: return {0.0, init.scale};
    case Init::Rule::uniform: return {0.0, init.scale / std::sqrt(3.0)};
  }
  return {};
}

void redraw(const Param& p, const ParamArena& arena, std::uint64_t seed, std::uint32_t redraw) {
  p.master.copy_from(Tensor::from(ParamArena::draw(p, seed, redraw), p.shape, p.master.dtype(), arena.device));
}

}  // namespace eg
