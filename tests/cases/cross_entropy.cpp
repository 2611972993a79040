// tests/cases/cross_entropy.cpp
#include "autograd/ops/cross_entropy.h"

#include <cmath>

#include "tests/autograd/suite.h"

namespace eg::test {

namespace {

Hosts cross_entropy_value(const Hosts& in, double smoothing, double divisor) {
  const auto batch = std::size_t(in[0].shape[0]), classes = std::size_t(in[0].shape[1]);
  Host loss = host({1}), correct = host({in[0].shape[0]});
  const auto allowed = [&](std::size_t k) { return !in[3] || in[3].v[k] != 0; };
  double count = 0;
  for (std::size_t k = 0; k < classes; ++k) count += allowed(k);
  for (std::size_t b = 0; b < batch; ++b) {
    const double* const z = in[0].v.data() + b * classes;
    std::size_t best = classes, wanted = 0;
    double total = 0;
    for (std::size_t k = 0; k < classes; ++k) {
      if (allowed(k) && (best == classes || z[k] > z[best])) best = k;
      if (in[2] && in[2].v[b * classes + k] > in[2].v[b * classes + wanted]) wanted = k;
    }
    if (in[1]) wanted = std::size_t(in[1].v[b]);
    for (std::size_t k = 0; k < classes; ++k) total += allowed(k) ? std::exp(z[k] - z[best]) : 0.0;
    for (std::size_t k = 0; k < classes; ++k) {
      if (!allowed(k)) continue;
      const double hard = in[1] ? double(k == wanted) : in[2].v[b * classes + k];
      const double target = (1 - smoothing) * hard + smoothing / count;
      loss.v[0] -= target * (z[k] - z[best] - std::log(total)) / divisor;
    }
    correct.v[b] = double(best == wanted);
  }
  return {loss, correct};
}

}  // namespace

template <>
Suite<ops::CrossEntropyLoss> suite() {
  const auto hard = [](std::int64_t batch, std::int64_t classes, std::int64_t removed = -1) {
    return std::vector<Arg>{{{batch, classes}},
                            {{batch}, Draw::labels, 0.0, removed < 0 ? classes : removed},
                            absent(),
                            removed < 0 ? absent() : Arg{{classes}, Draw::allowed, 0.0, removed}};
  };
  const auto soft = [](std::int64_t batch, std::int64_t classes) {
    return std::vector<Arg>{{{batch, classes}}, absent(), {{batch, classes}, Draw::rows_of_one}, absent()};
  };
  return {
      .arguments = {"logits", "labels", "soft", "class_mask"},
      .cases = {{"labels", hard(4, 7), {0.0, 4.0}},
                {"one class", hard(2, 1), {0.0, 2.0}},
                {"smoothing", hard(5, 10), {0.1, 5.0}},
                {"a part of a larger batch", hard(3, 10), {0.0, 12.0}},
                {"a removed class", hard(6, 5, 4), {0.0, 6.0}},
                {"a removed class and smoothing", hard(6, 5, 4), {0.2, 6.0}},
                {"soft targets", soft(4, 6), {0.0, 4.0}},
                {"soft targets and smoothing", soft(3, 33), {0.1, 3.0}},
                {"many classes", hard(17, 199), {0.1, 17.0}, false}},
      .oracle = [](const Hosts& in,
                   const auto& attrs) { return cross_entropy_value(in, attrs.smoothing, attrs.divisor); },
      .bad = {{"smoothing", [](auto&, auto& attrs) { attrs.smoothing = 1.0; }},
              {"divisor", [](auto&, auto& attrs) { attrs.divisor = -1.0; }},
              {"labels", [](auto& in, auto&) { in[1] = {}; }},
              {"labels",
               [](auto& in, auto&) {
                 const std::vector<std::int32_t> labels{0, 1, 7, 2};
                 in[1] = Tensor::from(std::span<const std::int32_t>(labels), {4}, in[0].device());
               }}},
  };
}

}  // namespace eg::test
