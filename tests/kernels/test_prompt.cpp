// tests/kernels/test_prompt.cpp - a pool of prompts: who gets which, and what flows back.
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"prompt_match_fwd", "prompt_match_bwd", "prompt_prepend_fwd", "prompt_prepend_bwd"};

struct Pool {
  std::int64_t images, columns, prompts, select, length, tokens;
};
const std::vector<Pool> kPools{{1, 1, 1, 1, 1, 1},   {3, 7, 5, 2, 3, 4},   {9, 32, 10, 4, 2, 5},
                               {5, 33, 40, 3, 1, 2}, {70, 16, 6, 6, 2, 1}, {2, 65, 3, 1, 4, 0}};
std::string label_of(const Pool& p) {
  return cat(p.images, "x", p.columns, " ", p.select, " of ", p.prompts, " length ", p.length, " before ", p.tokens);
}

/// 1 / sqrt(|x|^2 + 1e-12) and a cosine: sums of C products, square roots and quotients that round a few times. The cosine
/// is as exact as the scalar product of the two unit vectors, whose terms sum to at most 1 in absolute value.
double norm_error(std::int64_t columns, double value) {
  return sum_error(columns + 1, value) + 4.0 * stored(value, DType::f32);
}
double cosine_error(std::int64_t columns) {
  return 3.0 * sum_error(columns + 1, 1.0) + 8.0 * unit_roundoff(DType::f32);
}

/// Rows of distinct indices below `prompts`, as a choice is: row b begins at a drawn index and goes round.
Draw choices(const Pool& p) {
  return [p](const Key& k, std::int64_t i) {
    const std::int64_t first = std::int64_t(k.below(std::uint64_t(i / p.select), std::uint32_t(p.prompts)));
    return double((first + i % p.select) % p.prompts);
  };
}

}  // namespace

TEST_CASE("prompts: cosines, choices and what they sum to agree with the reference, image by image and batchwise") {
  for_each_activation([](DType t) {
    for (const Pool& p : kPools)
      for (const bool batchwise : {false, true})
        EVERGRAD_CONFORMS(
            prompt_match_fwd, PromptMatchFwd, cat(label_of(p), " batchwise ", batchwise), t,
            [&](Arguments& a) {
              PromptMatchFwd f;
              f.query = a.x("query", {p.images, p.columns}), f.keys = a.x("keys", {p.prompts, p.columns});
              f.query_scale = a.out("query_scale", DType::f32, {p.images});
              f.key_scale = a.out("key_scale", DType::f32, {p.prompts});
              f.cosine = a.out("cosine", DType::f32, {p.images, p.prompts});
              f.chosen = a.out("chosen", DType::i32, {p.images, p.select});
              f.match = a.out("match", DType::f32, {p.images}), f.batchwise = batchwise;
              return f;
            },
            [&](const Values&, const Values& exact) {
              Values bounds;
              for (const char* name : {"query_scale", "key_scale"})
                for (const double y : exact.at(name)) bounds[name].push_back(norm_error(p.columns, y));
              bounds["cosine"].assign(exact.at("cosine").size(), cosine_error(p.columns));
              bounds["match"].assign(exact.at("match").size(), double(p.select) * cosine_error(p.columns) +
                                                                   sum_error(p.select, double(p.select)));
              return bounds;  // "chosen" is not named: equal
            });
  });
}

TEST_CASE("prompts: of equal cosines the lower index is chosen; a key that is not a number comes last") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::int64_t images = 3, columns = 4;
  // Keys 1 and 3 point where the query does, 0 and 4 are equal and stand across, 2 is not a number, 5 points away.
  const std::vector<std::vector<double>> keys{{0, 2, 0, 0}, {3, 0, 0, 0}, {nan, 0, 0, 0},
                                              {3, 0, 0, 0}, {0, 2, 0, 0}, {-1, 0, 0, 0}};
  const std::vector<double> order{1, 3, 0, 4, 5, 2};
  for_each_activation([&](DType t) {
    for (std::int64_t select = 1; select <= 6; ++select)
      for (const bool batchwise : {false, true}) {
        Values found;
        EVERGRAD_CONFORMS(
            prompt_match_fwd, PromptMatchFwd, cat("ties, ", select, " of 6, batchwise ", batchwise), t,
            [&](Arguments& a) {
              PromptMatchFwd f;
              f.query =
                  a.x("query", {images, columns}, [](const Key&, std::int64_t i) { return i % 4 == 0 ? 2.0 : 0.0; });
              f.keys = a.x("keys", {6, columns},
                           [&](const Key&, std::int64_t i) { return keys[std::size_t(i / 4)][std::size_t(i % 4)]; });
              f.query_scale = a.out("query_scale", DType::f32, {images});
              f.key_scale = a.out("key_scale", DType::f32, {6});
              f.cosine = a.out("cosine", DType::f32, {images, 6});
              f.chosen = a.out("chosen", DType::i32, {images, select});
              f.match = a.out("match", DType::f32, {images}), f.batchwise = batchwise;
              return f;
            },
            [&](const Values&, const Values& exact) {
              found = exact;
              Values bounds;
              for (const char* name : {"query_scale", "key_scale"})
                for (const double y : exact.at(name)) bounds[name].push_back(norm_error(columns, y));
              bounds["cosine"].assign(exact.at("cosine").size(), cosine_error(columns));
              bounds["match"].assign(exact.at("match").size(),
                                     double(select) * cosine_error(columns) + sum_error(select, double(select)));
              return bounds;
            });
        // Batchwise the votes of all chosen prompts are equal, so the indices ascend.
        std::vector<double> expected(order.begin(), order.begin() + select);
        if (batchwise) std::sort(expected.begin(), expected.end());
        for (std::size_t i = 0; i < found.at("chosen").size(); ++i)
          CHECK(found.at("chosen")[i] == expected[i % std::size_t(select)]);
      }
  });
}

TEST_CASE("prompts: the gradient of the keys agrees with the reference, with and without accumulation") {
  for_each_activation([](DType t) {
    for (const Pool& p : kPools)
      for (const DType to : {DType::f32, DType::bf16})
        for (const bool adds : {false, true})
          EVERGRAD_CONFORMS(
              prompt_match_bwd, PromptMatchBwd, cat(label_of(p), " into ", to, " adds ", adds), t,
              [&](Arguments& a) {
                PromptMatchBwd b;
                b.query = a.x("query", {p.images, p.columns}), b.keys = a.x("keys", {p.prompts, p.columns});
                b.query_scale = a.stat("query_scale", {p.images}, between(0.5, 1.5));
                b.key_scale = a.stat("key_scale", {p.prompts}, between(0.5, 1.5));
                b.cosine = a.stat("cosine", {p.images, p.prompts}, between(-1.0, 1.0));
                b.chosen = a.typed("chosen", DType::i32, {p.images, p.select}, choices(p));
                b.dmatch = a.stat("dmatch", {1}), b.dkeys = a.out("dkeys", to, {p.prompts, p.columns}, adds);
                b.scale = -0.5, b.accumulate = adds;
                return b;
              },
              [&](const Values& in, const Values&) {
                // At most 2 B terms, each a product of at most four rounded factors, and the factor in front.
                Values bounds{{"dkeys", {}}};
                for (std::int64_t m = 0; m < p.prompts; ++m)
                  for (std::int64_t c = 0; c < p.columns; ++c) {
                    const auto at = std::size_t(m * p.columns + c);
                    const double ks = in.at("key_scale")[std::size_t(m)];
                    double sum = 0.0;
                    for (std::int64_t i = 0; i < p.images * p.select; ++i) {
                      if (std::int64_t(in.at("chosen")[std::size_t(i)]) != m) continue;
                      const std::int64_t b = i / p.select;
                      sum += std::abs(in.at("query")[std::size_t(b * p.columns + c)] *
                                      in.at("query_scale")[std::size_t(b)]) +
                             std::abs(in.at("cosine")[std::size_t(b * p.prompts + m)] * ks * in.at("keys")[at]);
                    }
                    const double scaled = 0.5 * std::abs(in.at("dmatch")[0]) * ks * sum;
                    bounds["dkeys"].push_back(
                        sum_error(2 * p.images + 1, scaled + (adds ? std::abs(in.at("dkeys")[at]) : 0.0)) +
                        4.0 * stored(scaled, DType::f32));
                  }
                return bounds;
              });
  });
}

TEST_CASE("prompts: prompts and tokens are put together bit for bit") {
  for_each_activation([](DType t) {
    for (const Pool& p : kPools)
      EVERGRAD_CONFORMS(
          prompt_prepend_fwd, PromptPrependFwd, label_of(p), t,
          [&](Arguments& a) {
            return PromptPrependFwd{a.x("x", {p.images, p.tokens, p.columns}),
                                    a.x("prompts", {p.prompts, p.length, p.columns}),
                                    a.typed("chosen", DType::i32, {p.images, p.select}, choices(p)),
                                    a.x_out("out", {p.images, p.select * p.length + p.tokens, p.columns})};
          },
          equal());
  });
}

TEST_CASE("prompts: their gradient is the sum over the places where they stood; a prompt that nobody chose gets zero") {
  for_each_activation([](DType t) {
    for (const Pool& p : kPools)
      for (const DType to : {DType::f32, DType::bf16})
        for (const bool adds : {false, true})
          EVERGRAD_CONFORMS(
              prompt_prepend_bwd, PromptPrependBwd, cat(label_of(p), " into ", to, " adds ", adds), t,
              [&](Arguments& a) {
                return PromptPrependBwd{a.x("dout", {p.images, p.select * p.length + p.tokens, p.columns}),
                                        a.typed("chosen", DType::i32, {p.images, p.select}, choices(p)),
                                        a.out("dprompts", to, {p.prompts, p.length, p.columns}, adds), adds};
              },
              [&](const Values& in, const Values& exact) {
                const std::int64_t prompt = p.length * p.columns, image = p.select * prompt + p.tokens * p.columns;
                Values bounds{{"dprompts", std::vector<double>(exact.at("dprompts").size(), 0.0)}};
                for (std::int64_t i = 0; i < p.images * p.select; ++i)
                  for (std::int64_t k = 0; k < prompt; ++k)
                    bounds["dprompts"][std::size_t(std::int64_t(in.at("chosen")[std::size_t(i)]) * prompt + k)] +=
                        std::abs(in.at("dout")[std::size_t(i / p.select * image + i % p.select * prompt + k)]);
                for (std::size_t i = 0; i < bounds["dprompts"].size(); ++i)
                  bounds["dprompts"][i] =
                      sum_error(p.images + 1, bounds["dprompts"][i] + (adds ? std::abs(in.at("dprompts")[i]) : 0.0));
                return bounds;
              });
  });
}

}  // namespace eg::test
