// tests/kernels/test_optimizer.cpp - global norm, SGD, Adam, moving averages and the bookkeeping of a step.
//
// Errors of an update, from the inside out, in units of u = u(f32). With D = |clip g| + |decay w|: the gradient that
// counts is off by 3 u D (a rounded constant, a product, a sum); a moment mu b + keep d by 3 u of its terms and what d
// brings; the weight by 4 u |w| and lr times what its direction brings.
#include <cstring>

#include "tests/kernels/adam_error.h"
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"global_norm", "step_finish", "sgd_update", "adam_update", "ema_update"};
using Vector = std::vector<double>;
const double u = unit_roundoff(DType::f32);

/// Segments with gaps, with decay and without, empty ones, and one of several chunks (16384 elements); of a large array
/// more than a launch carries (106).
std::vector<Segment> segments_of(std::int64_t size) {
  if (size < 100) return {{0, size, 0, 1.0f, 0.05f}};
  const std::int64_t third = size / 3, small = size > 1000 ? 240 : 0;
  std::vector<Segment> all{{0, 1, 0, 1.0f, 0.0f}, {3, 3, 0, 1.0f, 0.0f}};
  for (std::int64_t i = 5; i < small; i += 2)
    all.push_back({i, i + 1, int(i / 2 % 3), 1.0f, i % 4 == 1 ? 0.05f : 0.0f});
  all.push_back({small + 5, third, 1, 0.5f, 0.05f}), all.push_back({third + 16, size - 7, 2, 1.0f, 0.0f});
  return all;
}
const std::vector<std::int64_t> kSizes{1, 31, 33, 197, 35001};

void fill_step(StepRecord& step) {
  step.seed = 5, step.step = 9;
  step.slot[0] = {0.01, 0}, step.slot[1] = {0.1, 3}, step.slot[2] = {0.3, 1000};
  step.clip_scale = 0.6;
}

/// Calls f(segment, i) for every element that an update touches.
template <class F>
void for_each_element(const std::vector<Segment>& segments, const F& f) {
  for (const Segment& s : segments)
    for (std::int64_t i = s.begin; i < s.end; ++i) f(s, std::size_t(i));
}

}  // namespace

TEST_CASE("global_norm: agrees with the reference to double precision, and finds NaN and infinity") {
  for_each_activation([](DType t) {
    for (const std::int64_t size : kSizes)
      for (const double bad : {0.0, double(NAN), double(HUGE_VAL)}) {
        const auto build = [&](Arguments& a) {
          a.segments = segments_of(size);
          a.step.max_norm = 1.0;
          const std::int64_t last = a.segments.back().end - 1;
          const Draw draw = [=](const Key& k, std::int64_t i) {
            return bad != 0.0 && i == last ? bad : k.normal(std::uint64_t(i));
          };
          return GlobalNorm{a.x("grad", {size}, draw), a.segments, a.step_record()};
        };
        Arguments exact(t, true);
        exact.run(&KernelTable::global_norm, build(exact));
        EVERGRAD_CONFORMS(global_norm, GlobalNorm, cat(size, " bad ", bad), t, build, equal());
        Arguments got(t, false);
        got.run(&KernelTable::global_norm, build(got));
        CAPTURE(size);
        CAPTURE(bad);
        CHECK(got.step.finite == (bad == 0.0 ? 1 : 0));
        CHECK(got.step.finite == exact.step.finite);
        if (bad != 0.0) continue;
        const double allowed = sum_error(size, exact.step.grad_norm_sq, DType::f64);
        CHECK(std::abs(got.step.grad_norm_sq - exact.step.grad_norm_sq) <= allowed);
        CHECK(std::abs(got.step.clip_scale - exact.step.clip_scale) <= 1e-12);
        const double norm = std::sqrt(exact.step.grad_norm_sq);
        CHECK(exact.step.clip_scale == doctest::Approx(norm > 1.0 ? 1.0 / norm : 1.0).epsilon(1e-12));
      }
  });
}

TEST_CASE("global_norm: without a gradient, the sum that stands in the record is judged as one that was taken") {
  for (const bool exact : {true, false})
    for (const double sum : {0.0, 0.25, 9.0, double(NAN), double(HUGE_VAL)}) {
      CAPTURE(sum);
      Arguments a(DType::f32, exact);
      a.step.max_norm = 1.0, a.step.grad_norm_sq = sum, a.step.finite = 7, a.step.clip_scale = 7.0;
      a.run(&KernelTable::global_norm, GlobalNorm{.step = a.step_record()});
      CHECK(a.step.finite == (std::isfinite(sum) ? 1 : 0));
      CHECK(a.step.clip_scale == (sum == 9.0 ? 1.0 / 3.0 : 1.0));
      if (std::isfinite(sum)) CHECK(a.step.grad_norm_sq == sum);
    }
}

TEST_CASE("step_finish: a finite step advances the slots it names, another one only counts as skipped") {
  for (const bool exact : {true, false}) {
    Arguments a(DType::f32, exact);
    StepRecord& step = a.step;
    fill_step(step);
    step.skipped_in_a_row = 4, step.skipped = 6;
    a.run(&KernelTable::step_finish, StepFinish{a.step_record(), 0b101u});
    CHECK(step.slot[0].t == 1);
    CHECK(step.slot[1].t == 3);
    CHECK(step.slot[2].t == 1001);
    CHECK(step.skipped == 6);
    CHECK(step.skipped_in_a_row == 0);
    step.finite = 0;
    a.run(&KernelTable::step_finish, StepFinish{a.step_record(), 0xffffu});
    CHECK(step.slot[0].t == 1);
    CHECK(step.skipped == 7);
    CHECK(step.skipped_in_a_row == 1);
  }
}

TEST_CASE("sgd_update: agrees with the reference for every set of options, and leaves gaps alone") {
  for (const std::int64_t size : kSizes)
    for (int options = 0; options < 16; ++options) {
      const bool momentum = (options & 1) != 0, nesterov = (options & 2) != 0, decoupled = (options & 4) != 0;
      const bool work = (options & 8) != 0, clipped = options % 5 == 1;
      const double mu = 0.9, dampening = options % 3 == 0 ? 0.25 : 0.0;
      const std::vector<Segment> segments = segments_of(size);
      StepRecord step;
      fill_step(step);
      EVERGRAD_CONFORMS(
          sgd_update, SgdUpdate, cat(size, " options ", options), DType::f32,
          [&](Arguments& a) {
            a.segments = segments, a.step = step;
            SgdUpdate s;
            s.weight = a.out("weight", DType::f32, {size}, true), s.grad = a.typed("grad", gradient_type(work), {size});
            if (momentum) s.momentum = a.out("momentum", DType::f32, {size}, true);
            if (work) s.work = a.out("work", DType::bf16, {size}, true);
            s.segments = a.segments, s.step = a.step_record();
            s.mu = mu, s.dampening = dampening, s.nesterov = nesterov, s.decoupled = decoupled, s.clipped = clipped;
            return s;
          },
          [&](const Values& in, const Values& exact) {
            Values bounds{{"weight", Vector(std::size_t(size), 0.0)}};
            if (momentum) bounds["momentum"] = bounds["weight"];
            for_each_element(segments, [&](const Segment& s, std::size_t i) {
              const double w = in.at("weight")[i], lr = step.slot[s.slot].lr * double(s.lr_scale);
              const double D = std::abs((clipped ? 1.0 : step.clip_scale) * in.at("grad")[i]) +
                               (decoupled ? 0.0 : std::abs(double(s.weight_decay) * w));
              double terms = D, error = 3.0 * u * D;
              if (momentum) {
                const bool first = step.slot[s.slot].t == 0;
                const double old = first ? 0.0 : std::abs(mu * in.at("momentum")[i]);
                const double keep = first ? 1.0 : 1.0 - dampening;
                const double b_error = 3.0 * u * (old + keep * D) + keep * error;
                bounds["momentum"][i] = b_error;
                terms = (nesterov ? D : 0.0) + (nesterov ? mu : 1.0) * (old + keep * D);
                error = (nesterov ? error + mu * b_error : b_error) + 3.0 * u * terms;
              }
              bounds["weight"][i] = 4.0 * u * std::abs(w) + lr * (error + 3.0 * u * terms);
            });
            // The copy rounds the weight that the cpu has: its error is the weight's, and its own rounding.
            if (work) bounds["work"] = bounds["weight"];
            if (work)
              for (std::size_t i = 0; i < bounds["work"].size(); ++i)
                bounds["work"][i] += stored(exact.at("weight")[i], DType::f32);
            return bounds;
          });
    }
}

namespace {

struct AdamCase {
  std::int64_t rows, columns;
  bool decoupled, work, row_steps, column_steps;
  std::int64_t size() const { return rows * columns; }
};

/// With counts of replaced units there is one segment, which is one matrix; otherwise the usual ones.
std::vector<Segment> segments_of(const AdamCase& c) {
  if (!c.row_steps && !c.column_steps) return segments_of(c.size());
  return {{0, c.size(), 2, 1.0f, 0.05f}};
}

AdamUpdate arguments(Arguments& a, const AdamCase& c) {
  a.segments = segments_of(c);
  fill_step(a.step);
  AdamUpdate s;
  const Shape shape{c.size()};
  s.weight = a.out("weight", DType::f32, shape, true), s.grad = a.typed("grad", gradient_type(c.work), shape);
  s.m = a.typed("m", DType::f32, shape, normal(0.5), Use::added);
  s.v = a.typed("v", DType::f32, shape, between(0.0, 2.0), Use::added);
  if (c.work) s.work = a.out("work", DType::bf16, shape, true);
  s.segments = a.segments, s.step = a.step_record();
  s.decoupled = c.decoupled, s.rows = c.rows, s.columns = c.columns;
  if (c.row_steps) s.row_steps = a.typed("row_steps", DType::i32, {c.rows}, integers(0, 3));
  if (c.column_steps) s.column_steps = a.typed("column_steps", DType::i32, {c.columns}, integers(0, 2));
  return s;
}

/// The direction m c1 / (sqrt(v) c2 + eps): the errors of m and v go through the quotient; sqrt halves the share of
/// v's.
Values bounds_of(const AdamCase& c, const Values& in, const Values& exact) {
  StepRecord step;
  fill_step(step);
  Values bounds{{"weight", Vector(std::size_t(c.size()), 0.0)}};
  bounds["m"] = bounds["v"] = bounds["weight"];
  for_each_element(segments_of(c), [&](const Segment& s, std::size_t i) {
    const double w = in.at("weight")[i], lr = step.slot[s.slot].lr * double(s.lr_scale);
    double t = double(step.slot[s.slot].t);
    if (c.row_steps) t = std::min(t, in.at("row_steps")[i / std::size_t(c.columns)]);
    if (c.column_steps) t = std::min(t, in.at("column_steps")[i % std::size_t(c.columns)]);
    const double D =
        std::abs(step.clip_scale * in.at("grad")[i]) + (c.decoupled ? 0.0 : std::abs(double(s.weight_decay) * w));
    const AdamError e = adam_error(in.at("m")[i], in.at("v")[i], exact.at("m")[i], exact.at("v")[i], D, t);
    bounds["m"][i] = e.m, bounds["v"][i] = e.v;
    bounds["weight"][i] = 4.0 * u * std::abs(w) + lr * (e.direction_error + 3.0 * u * e.direction);
  });
  if (c.work) bounds["work"] = bounds["weight"];
  for (std::size_t i = 0; c.work && i < bounds["work"].size(); ++i)
    bounds["work"][i] += stored(exact.at("weight")[i], DType::f32);
  return bounds;
}

}  // namespace

TEST_CASE("adam_update: agrees with the reference for every set of options") {
  const std::pair<std::int64_t, std::int64_t> matrices[] = {{1, 1}, {1, 31}, {33, 1}, {7, 31}, {67, 197}};
  for (const auto& [rows, columns] : matrices)
    for (int options = 0; options < 16; ++options) {
      const AdamCase c{rows, columns, (options & 1) != 0, (options & 2) != 0, (options & 4) != 0, (options & 8) != 0};
      EVERGRAD_CONFORMS(
          adam_update, AdamUpdate, cat(rows, " x ", columns, " options ", options), DType::f32,
          [&](Arguments& a) { return arguments(a, c); },
          [&](const Values& in, const Values& exact) { return bounds_of(c, in, exact); });
    }
}

TEST_CASE("ema_update: agrees with the reference, with and without a step record") {
  for (const std::int64_t size : {0, 1, 31, 33, 35001})
    for (const bool with_step : {false, true})
      EVERGRAD_CONFORMS(
          ema_update, EmaUpdate, cat(size, " step ", with_step), DType::f32,
          [&](Arguments& a) {
            return EmaUpdate{a.out("average", DType::f32, {size}, true), a.stat("weight", {size}), 0.999,
                             with_step ? a.step_record() : nullptr};
          },
          [](const Values& in, const Values& exact) {
            Values bounds{{"average", {}}};
            for (std::size_t i = 0; i < exact.at("average").size(); ++i)
              bounds["average"].push_back(elementwise_error(
                  std::max(std::abs(in.at("average")[i]), std::abs(in.at("weight")[i])), exact.at("average")[i]));
            return bounds;
          });
}

TEST_CASE("updates: a step with a gradient that is not finite changes no bit") {
  for (const bool exact : {false, true}) {
    const auto untouched = [&](const auto& run) {
      Arguments a(DType::f32, exact);
      fill_step(a.step);
      a.step.finite = 0, a.segments = {{0, 40, 0, 1.0f, 0.1f}};
      const Draw broken = [](const Key& k, std::int64_t i) {
        return i == 7 ? double(NAN) : k.normal(std::uint64_t(i));
      };
      const TensorView grad = a.stat("grad", {40}, broken);
      const auto buffer = [&](const char* name) { return a.out(name, DType::f32, {40}, true); };
      const TensorView weight = buffer("weight"), first = buffer("first"), second = buffer("second");
      const std::vector<std::byte> before = a.bytes();
      run(a, weight, grad, first, second);
      CHECK(a.bytes() == before);
    };
    untouched([&](Arguments& a, const TensorView& w, const TensorView& g, const TensorView& m, const TensorView&) {
      a.run(
          &KernelTable::sgd_update,
          SgdUpdate{.weight = w, .grad = g, .momentum = m, .segments = a.segments, .step = a.step_record(), .mu = 0.9});
    });
    untouched([&](Arguments& a, const TensorView& w, const TensorView& g, const TensorView& m, const TensorView& v) {
      a.run(&KernelTable::adam_update,
            AdamUpdate{.weight = w, .grad = g, .m = m, .v = v, .segments = a.segments, .step = a.step_record()});
    });
    untouched([&](Arguments& a, const TensorView& w, const TensorView&, const TensorView& m, const TensorView&) {
      a.run(&KernelTable::ema_update, EmaUpdate{.average = m, .weight = w, .step = a.step_record()});
    });
  }
}

}  // namespace eg::test
