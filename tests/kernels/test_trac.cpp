// tests/kernels/test_trac.cpp - the passes of TRAC over the weights. (The tuners are tested in tests/optim.)
#include "engine/trac_tune.h"
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"trac_measure", "trac_apply"};
using Vector = std::vector<double>;
const double u = unit_roundoff(DType::f32);
const std::vector<std::int64_t> kSizes{1, 31, 33, 197, 35001};

/// A state in the middle of training.
TensorView state_of(Arguments& a) {
  return a.typed(
      "state", DType::f64, {kTracState},
      [](const Key&, std::int64_t i) {
        const double head[] = {0.3, 0.28, 0.01, 0.0};
        return i < kTracSigma ? head[i] : i < kTracV ? 0.2 * double(i) : 1.0 + double(i);
      },
      Use::added);
}

}  // namespace

TEST_CASE("trac_measure: agrees with the reference, with the way kept and made from the weights") {
  for (const std::int64_t size : kSizes)
    for (const bool kept : {false, true})
      for (const bool narrow : {false, true}) {
        EVERGRAD_CONFORMS(
            trac_measure, TracMeasure, cat(size, " kept ", kept, " narrow ", narrow), DType::f32,
            [&](Arguments& a) {
              a.step.clip_scale = 0.5;
              TracMeasure m;
              m.grad = a.typed("grad", gradient_type(narrow), {size}, normal(0.01));
              m.weight = a.stat("weight", {size}), m.anchor = a.stat("anchor", {size});
              if (kept) m.way = a.stat("way", {size});
              m.state = state_of(a), m.step = a.step_record();
              return m;
            },
            [&](const Values& in, const Values&) {
              // Sums are in double; the difference of weight and anchor is rounded to fp32 before. An error e of h moves
              // sigma by e, v by 2 h e, and a tuner's argument x = sigma / sqrt(2 v), here below 2, by less than 2 e;
              // erfi' = 2/sqrt(pi) e^(x^2) is below 62 there, six tuners of weight 1.05e-8.
              double terms = 0.0, products = 0.0;
              for (std::size_t i = 0; i < in.at("grad").size(); ++i) {
                const double way =
                    kept ? in.at("way")[i] : (in.at("weight")[i] - in.at("anchor")[i]) / (0.3 + kTracEps);
                const double g = 0.5 * in.at("grad")[i];
                terms += std::abs(g) * (std::abs(way) + (kept ? 0.0 : 10.0)), products += g * way;
              }
              const double e = (kept ? 0.0 : u * terms) + sum_error(size, terms, DType::f64);
              Vector bounds(kTracState, e);
              for (int j = 0; j < kTracTuners; ++j)
                bounds[std::size_t(kTracV + j)] = 2.0 * (std::abs(products) + e) * e + 1e-12;
              bounds[kTracScale] = 6.0 * 1.05e-8 * 62.0 * 2.0 * e + 1e-18, bounds[kTracBefore] = 0.0,
              bounds[kTracCut] = 0.0;
              return Values{{"state", bounds}};
            });
      }
}

TEST_CASE("trac_apply: agrees with the reference; a negative scale leaves the anchor") {
  for (const std::int64_t size : kSizes)
    for (int options = 0; options < 8; ++options) {
      const bool kept = (options & 1) != 0, work = (options & 2) != 0, negative = (options & 4) != 0;
      const double scale = negative ? -0.3 : 0.3;
      EVERGRAD_CONFORMS(
          trac_apply, TracApply, cat(size, " options ", options), DType::f32,
          [&](Arguments& a) {
            TracApply m;
            m.weight = a.out("weight", DType::f32, {size}, true);
            m.before = a.stat("before", {size}), m.anchor = a.stat("anchor", {size});
            if (kept) m.way = a.out("way", DType::f32, {size}, true);
            if (work) m.work = a.out("work", DType::bf16, {size}, true);
            m.state = a.typed("state", DType::f64, {kTracState}, constant(scale), Use::added), m.step = a.step_record();
            return m;
          },
          [&](const Values& in, const Values& exact) {
            Values bounds{{"weight", {}}, {"state", Vector(kTracState, 0.0)}};
            for (std::size_t i = 0; i < std::size_t(size); ++i) {
              const double w = std::abs(in.at("weight")[i]), before = std::abs(in.at("before")[i]);
              const double anchor = std::abs(in.at("anchor")[i]);
              const double way = kept ? std::abs(in.at("way")[i]) : (before + anchor) / 0.29;
              const double error = 5.0 * u * (way + w + before);
              if (kept) bounds["way"].push_back(error);
              bounds["weight"].push_back(
                  negative ? 0.0 : 2.0 * u * anchor + 0.3 * error + 4.0 * u * 0.3 * (way + w + before));
            }
            if (work) bounds["work"] = bounds["weight"];
            for (std::size_t i = 0; work && i < bounds["work"].size(); ++i)
              bounds["work"][i] += stored(exact.at("weight")[i], DType::f32);
            return bounds;
          });
    }
}

}  // namespace eg::test
