// apps/diagnosis/attention_flow.cpp - see attention_flow.h. Only the readout's row of each product is wanted, so that row
// goes through the blocks from the last to the first: a vector times a matrix each, instead of a product of matrices.
#include "apps/diagnosis/attention_flow.h"

#include <algorithm>

#include "engine/error.h"

namespace eg {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<double> start_row(std::int64_t tokens, const Readout& r) {
  std::vector<double> row(at(tokens), 0.0);
  if (r.prompts > 0)
    std::fill(row.begin(), row.begin() + r.prompts, 1.0 / double(r.prompts));
  else if (r.class_token)
    row[0] = 1.0;
  else
    std::fill(row.begin() + r.prefix, row.end(), 1.0 / double(tokens - r.prefix));
  return row;
}

std::vector<double> patches_of(const std::vector<double>& row, const Readout& r) {
  return {row.begin() + r.prefix, row.end()};
}

void check_blocks(std::span<const AttentionMaps> blocks, const Readout& r) {
  check(!blocks.empty(), Kind::usage, [] { return std::string("attention flows through at least one block"); });
  for (const AttentionMaps& m : blocks)
    check(m.images == 1 && m.tokens == blocks[0].tokens && m.heads > 0 && m.tokens > r.prefix, Kind::shape, [&] {
      return cat("attention flows through maps [1, heads, ", blocks[0].tokens, ", same], got [", m.images, ", ",
                 m.heads, ", ", m.tokens, ", same] with ", r.prefix, " tokens in front of the patches");
    });
}

/// row <- keep x row + share x row . (weight of one block, summed over heads)
template <class Weight>
std::vector<double> through(const AttentionMaps& m, const std::vector<double>& row, double keep, double share,
                            const Weight& weight) {
  const std::int64_t n = m.tokens;
  std::vector<double> out(at(n), 0.0);
  for (std::int64_t q = 0; q < n; ++q) {
    const double from = row[at(q)];
    if (from == 0.0) continue;
    out[at(q)] += keep * from;
    for (std::int64_t h = 0; h < m.heads; ++h)
      for (std::int64_t k = 0; k < n; ++k)
        out[at(k)] += share * from * weight(at((h * n + q) * n + k)) / double(m.heads);
  }
  return out;
}

}  // namespace

std::vector<double> attention_rollout(std::span<const AttentionMaps> blocks, const Readout& readout) {
  check_blocks(blocks, readout);
  std::vector<double> row = start_row(blocks[0].tokens, readout);
  for (std::size_t l = blocks.size(); l-- > 0;)
    row = through(blocks[l], row, 0.5, 0.5, [&](std::size_t i) { return blocks[l].p[i]; });
  return patches_of(row, readout);
}

std::vector<double> attention_relevance(std::span<const AttentionMaps> blocks,
                                        std::span<const std::vector<double>> gradients, const Readout& readout) {
  check_blocks(blocks, readout);
  check(gradients.size() == blocks.size(), Kind::shape, [&] {
    return cat("relevance needs a gradient for each of ", blocks.size(), " blocks, got ", gradients.size());
  });
  std::vector<double> row = start_row(blocks[0].tokens, readout);
  for (std::size_t l = blocks.size(); l-- > 0;) {
    check(gradients[l].size() == blocks[l].p.size(), Kind::shape, [&] {
      return cat("block ", l, " has ", blocks[l].p.size(), " attention probabilities and ", gradients[l].size(),
                 " gradients");
    });
    row = through(blocks[l], row, 1.0, 1.0,
                  [&](std::size_t i) { return std::max(0.0, blocks[l].p[i] * gradients[l][i]); });
  }
  return patches_of(row, readout);
}

std::vector<double> attention_gradient(std::span<const double> qkv, std::span<const double> dout, std::int64_t images,
                                       std::int64_t tokens, std::int64_t heads) {
  const std::int64_t dim = std::int64_t(dout.size()) / std::max<std::int64_t>(1, images * tokens);
  const std::int64_t width = dim / std::max<std::int64_t>(1, heads);
  check(std::int64_t(dout.size()) == images * tokens * heads * width && qkv.size() == 3 * dout.size(), Kind::shape,
        [&] {
          return cat("attention_gradient: ", qkv.size(), " and ", dout.size(), " numbers are not [", images, ", ",
                     tokens, ", 3 x ", heads, " heads] and the gradient of what they mix");
        });
  std::vector<double> gradient(at(images * heads * tokens * tokens));
  for (std::int64_t i = 0; i < images; ++i)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t q = 0; q < tokens; ++q)
        for (std::int64_t k = 0; k < tokens; ++k) {
          const double* const d = &dout[at((i * tokens + q) * dim + h * width)];
          const double* const v = &qkv[at((i * tokens + k) * 3 * dim + 2 * dim + h * width)];
          double dot = 0.0;
          for (std::int64_t c = 0; c < width; ++c) dot += d[c] * v[c];
          gradient[at(((i * heads + h) * tokens + q) * tokens + k)] = dot;
        }
  return gradient;
}

std::vector<double> patch_attention(const AttentionMaps& maps, std::int64_t image, std::int64_t head,
                                    const Readout& readout) {
  const std::span<const double> map = maps.map(image, head);
  const std::vector<double> start = start_row(maps.tokens, readout);
  std::vector<double> row(at(maps.tokens), 0.0);
  for (std::int64_t q = 0; q < maps.tokens; ++q)
    for (std::int64_t k = 0; k < maps.tokens && start[at(q)] != 0.0; ++k)
      row[at(k)] += start[at(q)] * map[at(q * maps.tokens + k)];
  return patches_of(row, readout);
}

}  // namespace eg
