// tests/kernels/test_elementwise.cpp - cast, fill, add, axpy, scale_by and GELU: one number in, one number out.
#include <algorithm>
#include <cmath>

#include "engine/reference/gelu.h"
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"cast", "fill", "add", "axpy", "scale_by", "gelu_fwd", "gelu_bwd", "crelu_fwd", "crelu_bwd"};

// The last is three chunks of the largest grain (32768), so that threads share the work.
const std::vector<Shape> kShapes{{0},  {1},  {7},   {15},   {16},     {31},       {32},
                                 {33}, {65}, {257}, {1025}, {5, 197}, {3, 7, 11}, {65539}};
constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u8};

/// Elementwise error of y for every element, with the largest input f(i).
template <class F>
Values elementwise(const Values& exact, const char* out, const F& largest_input) {
  Values bounds;
  const std::vector<double>& y = exact.at(out);
  for (std::size_t i = 0; i < y.size(); ++i) bounds[out].push_back(elementwise_error(largest_input(i), y[i]));
  bounds[out];
  return bounds;
}

}  // namespace

TEST_CASE("crelu: both directions equal the reference, bit for bit where nothing is added, and NaN stays NaN") {
  for_each_activation([](DType t) {
    for (const Shape& shape : {Shape{1, 1}, Shape{5, 7}, Shape{3, 16}, Shape{197, 40}, Shape{2, 3, 33}}) {
      Shape twice = shape;
      twice[-1] = 2 * shape[-1];
      EVERGRAD_CONFORMS(
          crelu_fwd, CreluFwd, cat(shape), t,
          [&](Arguments& a) {
            return CreluFwd{a.x("x", shape), a.x_out("y", twice)};
          },
          equal());
      for (const bool accumulate : {false, true})
        EVERGRAD_CONFORMS(
            crelu_bwd, CreluBwd, cat(shape, " accumulate ", accumulate), t,
            [&](Arguments& a) {
              const Draw signs = integers(-2, 2);  // zeros too
              return CreluBwd{a.x("x", shape, signs), a.x("dy", twice), a.x_out("dx", shape, accumulate), accumulate};
            },
            [&](const Values&, const Values& exact) {
              return accumulate ? elementwise(exact, "dx", [](std::size_t) { return 0.0; }) : Values{};
            });
    }
  });
  for (const bool exact : {false, true}) {
    Arguments a(DType::f32, exact);
    const TensorView y = a.x_out("y", {1, 18}, true), x = a.x("x", {1, 9}, constant(NAN));
    a.run(&KernelTable::crelu_fwd, CreluFwd{x, y});
    const std::vector<double> got = a.values().at("y");
    CHECK(std::all_of(got.begin(), got.end(), [](double v) { return std::isnan(v); }));
  }
}

TEST_CASE("cast: every pair of types equals the reference, bit for bit") {
  for (const DType from : kTypes)
    for (const DType to : kTypes)
      for (const Shape& shape : kShapes)
        EVERGRAD_CONFORMS(
            cast, Cast, cat(from, " to ", to, " ", shape), DType::f32,
            [&](Arguments& a) {
              const Draw draw = is_float(from) ? normal(100.0) : integers(0, 255);
              return Cast{a.typed("from", from, shape, draw), a.out("to", to, shape)};
            },
            equal());
}

TEST_CASE("cast: numbers that a type cannot hold become its nearest, NaN stays NaN or becomes 0") {
  const double values[] = {-1e12, -300.7, -1.5, -0.0, 0.49, 255.5, 256.0, 3e9, 1e39, -1e39, HUGE_VAL, -HUGE_VAL, NAN};
  for (const DType from : {DType::f32, DType::bf16, DType::f64})
    for (const DType to : kTypes)
      EVERGRAD_CONFORMS(
          cast, Cast, cat(from, " to ", to), DType::f32,
          [&](Arguments& a) {
            const Draw draw = [&](const Key&, std::int64_t i) { return values[i]; };
            return Cast{a.typed("from", from, {13}, draw), a.out("to", to, {13})};
          },
          equal());
}

TEST_CASE("cast: bf16 rounds to nearest even") {
  // Halfway cases between neighbours whose last bit is even and odd, and their next floats.
  std::vector<float> from;
  for (const float start : {1.0f, 1.0078125f, -3.0f, 1e30f, 1e-30f})
    for (const std::uint32_t tail : {0x7fffu, 0x8000u, 0x8001u, 0xffffu, 1u})
      from.push_back(__builtin_bit_cast(float, (__builtin_bit_cast(std::uint32_t, start) & 0xffff0000u) | tail));
  EVERGRAD_CONFORMS(
      cast, Cast, "halfway", DType::f32,
      [&](Arguments& a) {
        const Draw draw = [&](const Key&, std::int64_t i) { return double(from[std::size_t(i)]); };
        const Shape shape{std::int64_t(from.size())};
        return Cast{a.typed("from", DType::f32, shape, draw), a.out("to", DType::bf16, shape)};
      },
      equal());
}

TEST_CASE("fill: equals the reference, bit for bit") {
  for (const DType type : kTypes)
    for (const Shape& shape : kShapes)
      for (const double value : {0.0, 3.3, 250.0})
        EVERGRAD_CONFORMS(
            fill, Fill, cat(type, " ", shape, " ", value), DType::f32,
            [&](Arguments& a) {
              return Fill{a.out("x", type, shape), value};
            },
            equal());
}

TEST_CASE("add: every mix of types agrees with the reference") {
  const DType floats[] = {DType::f32, DType::bf16, DType::f64};
  for (const DType p : floats)
    for (const DType q : floats)
      for (const DType out : floats)
        for (const Shape& shape : kShapes) {
          if (shape.size() > 1000 && (p == DType::f64 || q != DType::f32)) continue;
          EVERGRAD_CONFORMS(
              add, Add, cat(p, " + ", q, " = ", out, " ", shape), DType::f32,
              [&](Arguments& a) {
                return Add{a.typed("a", p, shape), a.typed("b", q, shape), a.out("out", out, shape)};
              },
              [](const Values& in, const Values& exact) {
                return elementwise(exact, "out", [&](std::size_t i) {
                  return std::max(std::abs(in.at("a")[i]), std::abs(in.at("b")[i]));
                });
              });
        }
}

TEST_CASE("add: the result may replace an input") {
  for_each_activation([](DType t) {
    EVERGRAD_CONFORMS(
        add, Add, "out is a", t,
        [](Arguments& a) {
          const TensorView x = a.x("x", {5, 33}, normal(), Use::added);
          return Add{x, a.x("b", {5, 33}), x};
        },
        [](const Values& in, const Values& exact) {
          return elementwise(exact, "x",
                             [&](std::size_t i) { return std::max(std::abs(in.at("x")[i]), std::abs(in.at("b")[i])); });
        });
  });
}

TEST_CASE("axpy: every mix of types agrees with the reference") {
  for (const DType from : {DType::f32, DType::bf16, DType::f64})
    for (const DType to : {DType::f32, DType::bf16, DType::f64})
      for (const Shape& shape : kShapes)
        for (const double alpha : {-0.3, 1.0, 0.0}) {
          if (shape.size() > 1000 && (alpha != -0.3 || to == DType::f64)) continue;
          EVERGRAD_CONFORMS(
              axpy, Axpy, cat(from, " into ", to, " ", shape, " ", alpha), DType::f32,
              [&](Arguments& a) {
                return Axpy{a.typed("x", from, shape), a.out("y", to, shape, true), alpha};
              },
              [&](const Values& in, const Values& exact) {
                return elementwise(exact, "y", [&](std::size_t i) {
                  return std::max(std::abs(alpha * in.at("x")[i]), std::abs(in.at("y")[i]));
                });
              });
        }
}

TEST_CASE("scale_by: agrees with the reference, with and without accumulation") {
  for (const DType from : {DType::f32, DType::bf16, DType::f64})
    for (const DType to : {DType::f32, DType::bf16})
      for (const Shape& shape : kShapes)
        for (const bool accumulate : {false, true})
          EVERGRAD_CONFORMS(
              scale_by, ScaleBy, cat(from, " into ", to, " ", shape, " adds ", accumulate), DType::f32,
              [&](Arguments& a) {
                return ScaleBy{a.typed("x", from, shape), a.stat("factor", {1}), a.out("y", to, shape, accumulate),
                               accumulate};
              },
              [&](const Values& in, const Values& exact) {
                return elementwise(exact, "y", [&](std::size_t i) {
                  return std::max(std::abs(in.at("factor")[0] * in.at("x")[i]),
                                  accumulate ? std::abs(in.at("y")[i]) : 0.0);
                });
              });
}

TEST_CASE("gelu: forward agrees with the reference, also far out") {
  for_each_activation([](DType t) {
    for (const Shape& shape : kShapes)
      for (const GeluKind kind : {GeluKind::erf, GeluKind::tanh})
        for (const double spread : {1.0, 8.0, 1e4})
          EVERGRAD_CONFORMS(
              gelu_fwd, GeluFwd, cat(shape, " kind ", int(kind), " spread ", spread), t,
              [&](Arguments& a) {
                return GeluFwd{a.x("x", shape, normal(spread)), a.x_out("y", shape), kind};
              },
              [&](const Values& in, const Values&) {
                Values bounds{{"y", {}}};
                for (const double x : in.at("x")) bounds["y"].push_back(gelu_error(kind, x));
                return bounds;
              });
  });
}

TEST_CASE("gelu: backward agrees with the reference, with and without accumulation") {
  for_each_activation([](DType t) {
    for (const Shape& shape : kShapes)
      for (const GeluKind kind : {GeluKind::erf, GeluKind::tanh})
        for (const bool adds : {false, true})
          EVERGRAD_CONFORMS(
              gelu_bwd, GeluBwd, cat(shape, " kind ", int(kind), " adds ", adds), t,
              [&](Arguments& a) {
                return GeluBwd{a.x("x", shape, normal(3.0)), a.x("dy", shape), a.x_out("dx", shape, adds), kind, adds};
              },
              [&](const Values& in, const Values& exact) {
                Values bounds{{"dx", {}}};
                const std::vector<double>&x = in.at("x"), &dy = in.at("dy"), &dx = exact.at("dx");
                for (std::size_t i = 0; i < x.size(); ++i)
                  bounds["dx"].push_back(std::abs(dy[i]) * gelu_gradient_error(kind, x[i]) +
                                         elementwise_error(adds ? in.at("dx")[i] : 0.0, dx[i]));
                return bounds;
              });
  });
}

}  // namespace eg::test
