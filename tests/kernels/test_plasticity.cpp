// tests/kernels/test_plasticity.cpp - passes of plasticity methods over the weights.
#include <cmath>

#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"weight_penalty", "weight_perturb", "weight_project",
                    "weight_ascent",  "unit_utility",   "unit_reset"};
using Vector = std::vector<double>;
const double u = unit_roundoff(DType::f32);
const std::vector<std::int64_t> kSizes{1, 31, 33, 197, 35001};

/// Segments with gaps between them, the last of several chunks; of a large array more than a launch carries (87).
std::vector<WeightSegment> segments_of(std::int64_t size, WeightSegment s) {
  const std::int64_t third = size / 3;
  if (size < 100) return {{0, size, s.keep, s.pull, s.shift, s.noise, s.bound}};
  const auto range = [&](std::int64_t begin, std::int64_t end) {
    return WeightSegment{begin, end, s.keep, s.pull, s.shift, s.noise, s.bound};
  };
  std::vector<WeightSegment> all{range(0, 1), range(3, 3)};
  const std::int64_t small = size > 1000 ? 200 : 0;
  for (std::int64_t i = 5; i < small; i += 2) all.push_back(range(i, i + 1));
  all.push_back({small + 5, third, s.keep, 0.5f * s.pull, s.shift, s.noise, 0.5f * s.bound});
  all.push_back({third + 16, size - 7, 1.0f, s.pull, 0.0f, 2.0f * s.noise, s.bound});
  return all;
}

/// The copy rounds the weight that the device has: its error is the weight's, and its own rounding.
void add_work(Values& bounds, const Values& exact) {
  bounds["work"] = bounds["weight"];
  for (std::size_t i = 0; i < bounds["work"].size(); ++i)
    bounds["work"][i] += stored(exact.at("weight")[i], DType::f32);
}

}  // namespace

TEST_CASE("weight_penalty: agrees with the reference, with and without an anchor") {
  for (const std::int64_t size : kSizes)
    for (const bool anchor : {false, true})
      for (const bool narrow : {false, true}) {
        const std::vector<WeightSegment> segments = segments_of(size, {.pull = 0.01f});
        const DType type = gradient_type(narrow);
        EVERGRAD_CONFORMS(
            weight_penalty, WeightPenalty, cat(size, " anchor ", anchor, " grad ", type), DType::f32,
            [&](Arguments& a) {
              WeightPenalty p;
              p.grad = a.typed("grad", type, {size}, normal(1.0), Use::added), p.weight = a.stat("weight", {size});
              if (anchor) p.anchor = a.stat("anchor", {size});
              p.segments = segments;
              return p;
            },
            [&](const Values& in, const Values& exact) {
              Values bounds{{"grad", Vector(std::size_t(size), 0.0)}};
              for (const WeightSegment& s : segments)
                for (std::size_t i = std::size_t(s.begin); i < std::size_t(s.end); ++i) {
                  const double pulled =
                      double(s.pull) * (std::abs(in.at("weight")[i]) + (anchor ? std::abs(in.at("anchor")[i]) : 0.0));
                  bounds["grad"][i] =
                      3.0 * u * (std::abs(in.at("grad")[i]) + pulled) + stored(exact.at("grad")[i], type);
                }
              return bounds;
            });
      }
}

TEST_CASE("weight_perturb: agrees with the reference for every part of the formula") {
  for (const std::int64_t size : kSizes)
    for (int options = 0; options < 16; ++options) {
      const bool anchor = (options & 1) != 0, noise = (options & 2) != 0, work = (options & 4) != 0;
      const bool clipped = (options & 8) != 0;
      WeightSegment all{.keep = 0.9f, .shift = 0.01f};
      if (anchor) all.pull = 0.2f;
      if (noise) all.noise = 0.3f;
      if (clipped) all.bound = 0.5f;
      const std::vector<WeightSegment> segments = segments_of(size, all);
      const int slot = options % 3 == 0 ? 1 : -1;
      EVERGRAD_CONFORMS(
          weight_perturb, WeightPerturb, cat(size, " options ", options), DType::f32,
          [&](Arguments& a) {
            a.step.seed = 11, a.step.step = 6, a.step.slot[1].lr = 0.25;
            WeightPerturb p;
            p.weight = a.out("weight", DType::f32, {size}, true);
            if (anchor) p.anchor = a.stat("anchor", {size});
            if (work) p.work = a.out("work", DType::bf16, {size}, true);
            p.segments = segments, p.step = a.step_record(), p.stream = 77, p.noise_slot = slot;
            return p;
          },
          [&](const Values& in, const Values& exact) {
            Values bounds{{"weight", Vector(std::size_t(size), 0.0)}};
            for (const WeightSegment& s : segments)
              for (std::size_t i = std::size_t(s.begin); i < std::size_t(s.end); ++i) {
                // |n| <= sqrt(-2 ln 2^-25) < 6; the angle 2 pi v <= 6.3 is rounded before its cosine is taken, which
                // moves n by 2 u 6.3 times the radius, and logarithm, root, cosine and product round as well.
                const double n = double(s.noise) * (slot < 0 ? 1.0 : 0.25) * 6.0;
                const double terms = std::abs(double(s.keep) * in.at("weight")[i]) + std::abs(double(s.shift)) +
                                     (anchor ? std::abs(double(s.pull) * in.at("anchor")[i]) : 0.0) + n;
                bounds["weight"][i] = 5.0 * u * terms + 20.0 * u * n;
              }
            if (work) add_work(bounds, exact);
            return bounds;
          });
    }
}

TEST_CASE("weight_project: agrees with the reference, and leaves zeros alone") {
  for (const std::int64_t size : kSizes)
    for (const bool zeros : {false, true})
      for (const bool work : {false, true}) {
        const std::vector<WeightSegment> segments = segments_of(size, {.bound = 3.0f});
        EVERGRAD_CONFORMS(
            weight_project, WeightProject, cat(size, " zeros ", zeros, " work ", work), DType::f32,
            [&](Arguments& a) {
              WeightProject p;
              p.weight = a.typed("weight", DType::f32, {size}, zeros ? constant(0.0) : normal(1.0), Use::added);
              if (work) p.work = a.out("work", DType::bf16, {size}, true);
              p.segments = segments, p.step = a.step_record();
              a.step.step = 6, p.every = work ? 4 : 3;  // 6 is no multiple of 4: nothing happens
              return p;
            },
            [&](const Values&, const Values& exact) {
              Values bounds{{"weight", Vector(std::size_t(size), 0.0)}};
              // The norm is exact to double; the factor is rounded to fp32, and the product again.
              for (const WeightSegment& s : segments)
                for (std::size_t i = std::size_t(s.begin); i < std::size_t(s.end); ++i)
                  bounds["weight"][i] = 3.0 * u * std::abs(exact.at("weight")[i]);
              if (work) add_work(bounds, exact);
              return bounds;
            });
      }
}

TEST_CASE("weight_project: the norm is the one that was asked for") {
  Arguments a(DType::f32, false);
  const std::vector<WeightSegment> segments = segments_of(35001, {.bound = 3.0f});
  const TensorView weight = a.out("weight", DType::f32, {35001}, true);
  a.run(&KernelTable::weight_project, WeightProject{.weight = weight, .segments = segments, .step = a.step_record()});
  const Vector w = a.values().at("weight");
  for (const WeightSegment& s : segments) {
    double sum = 0.0;
    for (std::int64_t i = s.begin; i < s.end; ++i) sum += w[std::size_t(i)] * w[std::size_t(i)];
    if (s.begin < s.end) CHECK(std::sqrt(sum) == doctest::Approx(double(s.bound)).epsilon(1e-6));
  }
}

TEST_CASE("weight_ascent: agrees with the reference; segments without pull are copied and not counted") {
  for (const std::int64_t size : kSizes)
    for (const bool adaptive : {false, true})
      for (const bool narrow : {false, true})
        for_each_activation([&](DType activation) {
          std::vector<WeightSegment> segments = segments_of(size, {.pull = 0.3f});
          if (segments.size() > 1) segments[2].pull = 0.0f, segments[3].pull = segments[0].pull;
          const DType type = gradient_type(narrow);
          EVERGRAD_CONFORMS(
              weight_ascent, WeightAscent, cat(size, " adaptive ", adaptive, " grad ", type), activation,
              [&](Arguments& a) {
                WeightAscent p;
                p.weight = a.stat("weight", {size}), p.grad = a.typed("grad", type, {size});
                p.to = a.x_out("to", {size}, true), p.segments = segments, p.adaptive = adaptive;
                return p;
              },
              [&](const Values& in, const Values& exact) {
                Values bounds{{"to", Vector(std::size_t(size), 0.0)}};
                for (const WeightSegment& s : segments)
                  for (std::size_t i = std::size_t(s.begin); i < std::size_t(s.end) && s.pull != 0.0f; ++i) {
                    // The norm is exact to double; the factor is rounded to fp32, then up to three products and a sum.
                    const double e = std::abs(exact.at("to")[i] - in.at("weight")[i]);
                    bounds["to"][i] = 5.0 * u * e + u * std::abs(exact.at("to")[i]);
                  }
                return bounds;
              });
        });
}

TEST_CASE("weight_ascent: a norm that is not finite makes NaN of all weights with pull, and of no other") {
  for (const bool exact : {false, true}) {
    Arguments a(DType::f32, exact);
    const std::vector<WeightSegment> segments{{.begin = 0, .end = 8, .pull = 0.1f}, {.begin = 8, .end = 16}};
    const TensorView to = a.x_out("to", {16}, true);
    const TensorView weight = a.stat("weight", {16}), grad = a.typed("grad", DType::f32, {16}, constant(HUGE_VAL));
    a.run(&KernelTable::weight_ascent, WeightAscent{.weight = weight, .grad = grad, .to = to, .segments = segments});
    const Vector got = a.values().at("to"), w = a.values().at("weight");
    for (std::size_t i = 0; i < 16; ++i) CHECK((i < 8 ? std::isnan(got[i]) : got[i] == w[i]));
  }
}

TEST_CASE("unit_utility: agrees with the reference; counts steps, and clears the sums when they were not to be kept") {
  for (const std::int64_t units : {1, 31, 33, 257})
    for (const std::int64_t outputs : {1, 31, 65})
      for (int options = 0; options < 16; ++options) {
        const bool utility = (options & 1) != 0, keep = (options & 2) != 0, finite = (options & 4) != 0;
        const bool mean = (options & 8) != 0;
        EVERGRAD_CONFORMS(
            unit_utility, UnitUtility, cat(units, " x ", outputs, " options ", options), DType::f32,
            [&](Arguments& a) {
              a.step.step = 12, a.step.finite = finite;
              UnitUtility p;
              p.sum_abs = a.typed("sum_abs", DType::f64, {units}, between(0.0, 100.0), Use::added);
              if (utility) {
                p.weight_out = a.stat("weight_out", {outputs, units});
                p.utility = a.typed("utility", DType::f32, {units}, between(0.0, 1.0), Use::added);
              }
              p.steps = a.typed("steps", DType::i32, {units}, integers(0, 9), Use::added);
              if (mean) {
                p.sum = a.typed("sum", DType::f64, {units}, between(-20.0, 100.0), Use::added);
                p.row_count = a.typed("row_count", DType::f64, {1}, constant(70.0));
                p.mean = a.typed("mean", DType::f32, {units}, normal(1.0), Use::added);
              }
              p.rows = 130.0, p.decay = 0.9, p.keep_every = keep ? 4 : 5, p.step = a.step_record();
              return p;
            },
            [&](const Values& in, const Values&) {
              Values bounds{{"sum_abs", Vector(std::size_t(units), 0.0)}, {"steps", Vector(std::size_t(units), 0.0)}};
              // The quotient, the constants' rounding, two products and a sum.
              for (std::size_t f = 0; mean && f < std::size_t(units); ++f)
                bounds["mean"].push_back(3.0 * u * std::abs(in.at("mean")[f]) +
                                         0.1 * 5.0 * u * std::abs(in.at("sum")[f] / 70.0));
              for (std::size_t f = 0; utility && f < std::size_t(units); ++f) {
                double out = 0.0;
                for (std::size_t o = 0; o < std::size_t(outputs); ++o)
                  out += std::abs(in.at("weight_out")[o * std::size_t(units) + f]) / double(outputs);
                const double now = in.at("sum_abs")[f] / 130.0 * out;
                // The mean of absolute weights, three products, a sum.
                bounds["utility"].push_back(0.1 * (sum_error(outputs, now) + 4.0 * u * now) +
                                            3.0 * u * (in.at("utility")[f] + now));
              }
              return bounds;
            });
      }
}

TEST_CASE("unit_reset: writes rows, bias and column of the named units, and nothing else") {
  for (const DType type : {DType::f32, DType::bf16})
    for (const bool rows : {false, true})
      for (const std::int64_t inputs : {1, 7, 300}) {
        const std::int64_t hidden = 33, outputs = inputs + 4, fc2 = 16, bias = fc2 + hidden * outputs, fc1 = bias + 40;
        EVERGRAD_CONFORMS(
            unit_reset, UnitReset, cat(inputs, " rows ", rows, " ", type), DType::f32,
            [&](Arguments& a) {
              UnitReset p;
              p.array = a.out("array", type, {fc1 + hidden * inputs + 5}, true);
              p.fc1_weight = fc1, p.fc1_bias = bias, p.fc2_weight = fc2;
              p.inputs = inputs, p.hidden = hidden, p.outputs = outputs;
              p.units = a.typed("units", DType::i32, {3}, [](const Key&, std::int64_t i) { return double(i * 16); });
              if (rows) p.rows = a.stat("rows", {3, inputs});
              return p;
            },
            equal());
      }
}

TEST_CASE("plasticity: a step with a gradient that is not finite changes no bit") {
  for (const bool exact : {false, true}) {
    Arguments a(DType::f32, exact);
    a.step.finite = 0;
    const std::vector<WeightSegment> segments{{0, 40, 0.5f, 0.0f, 1.0f, 1.0f, 0.1f}};
    const TensorView weight = a.out("weight", DType::f32, {40}, true);
    const std::vector<std::byte> before = a.bytes();
    a.run(&KernelTable::weight_perturb, WeightPerturb{.weight = weight, .segments = segments, .step = a.step_record()});
    a.run(&KernelTable::weight_project, WeightProject{.weight = weight, .segments = segments, .step = a.step_record()});
    CHECK(a.bytes() == before);
  }
}

}  // namespace eg::test
