// tests/cases/match_prompts.cpp
#include "autograd/ops/match_prompts.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/autograd/suite.h"

namespace eg::test {

namespace {

using Order = std::vector<std::size_t>;

/// Indices by descending score; equal ones keep their order.
Order ranked(const std::vector<double>& scores) {
  Order all(scores.size());
  std::iota(all.begin(), all.end(), std::size_t(0));
  std::stable_sort(all.begin(), all.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  return all;
}

Hosts matched(const Hosts& in, const ops::MatchPrompts::Attrs& attrs) {
  const auto images = std::size_t(in[0].shape[0]), width = std::size_t(in[0].shape[1]),
             keys = std::size_t(in[1].shape[0]), select = std::size_t(attrs.select);
  const auto product = [&](const Host& a, std::size_t i, const Host& b, std::size_t j) {
    double sum = 0.0;
    for (std::size_t c = 0; c < width; ++c) sum += a.v[i * width + c] * b.v[j * width + c];
    return sum;
  };
  std::vector<std::vector<double>> cosines;
  std::vector<Order> choice;
  std::vector<double> votes(keys, 0.0);
  for (std::size_t b = 0; b < images; ++b) {
    std::vector<double>& row = cosines.emplace_back();
    for (std::size_t m = 0; m < keys; ++m)
      row.push_back(product(in[0], b, in[1], m) /
                    std::sqrt((product(in[0], b, in[0], b) + 1e-12) * (product(in[1], m, in[1], m) + 1e-12)));
    choice.push_back(ranked(row));
    for (std::size_t s = 0; s < select; ++s) votes[choice.back()[s]] += 1.0;
  }
  Host term = host({1}), chosen = host({in[0].shape[0], attrs.select});
  for (std::size_t b = 0; b < images; ++b) {
    const Order own = attrs.batchwise ? ranked(votes) : choice[b];
    for (std::size_t s = 0; s < select; ++s)
      chosen.v[b * select + s] = double(own[s]), term.v[0] += attrs.scale * cosines[b][own[s]];
  }
  return {term, chosen};
}

}  // namespace

template <>
Suite<ops::MatchPrompts> suite() {
  const auto make = [](std::int64_t images, std::int64_t keys, std::int64_t width) {
    return std::vector<Arg>{{{images, width}}, {{keys, width}, Draw::parameter}};
  };
  return {
      .arguments = {"query", "keys"},
      .cases = {{"two of five", make(3, 5, 4), {2, false, 1.0}},
                {"one of one", make(4, 1, 3), {1, false, -0.25}},
                {"batchwise", make(7, 6, 5), {3, true, -1.0}},
                {"all of them", make(2, 3, 33), {3, false, 0.5}},
                {"many images", make(67, 10, 32), {4, true, -0.1}, false}},
      .oracle = matched,
      .bad = {{"select", [](auto&, auto& attrs) { attrs.select = 6; }},
              {"select", [](auto&, auto& attrs) { attrs.select = 0; }},
              {"query",
               [](auto& in, auto&) {
                 in[0] = Tensor::zeros({0, in[0].dim(1)}, in[0].dtype(), in[0].device());
               }}},
  };
}

}  // namespace eg::test
