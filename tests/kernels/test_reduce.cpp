// tests/kernels/test_reduce.cpp - column_sum, mean, dot and the counters of units.
#include "engine/reference/gelu.h"
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"column_sum", "mean", "dot", "unit_statistics"};

// [rows, columns]; those of many rows take several chunks.
const std::vector<Shape> kMatrices{{0, 5},     {1, 1},  {1, 33}, {7, 31},  {197, 32}, {13, 3, 17},
                                   {1031, 67}, {33, 8}, {65, 3}, {257, 8}, {1025, 8}, {1025, 1}};

double abs_sum(const std::vector<double>& v) {
  double sum = 0.0;
  for (const double x : v) sum += std::abs(x);
  return sum;
}

}  // namespace

TEST_CASE("column_sum: agrees with the reference, into every type, with and without accumulation") {
  for_each_activation([](DType t) {
    for (const Shape& shape : kMatrices)
      for (const DType out : {DType::f32, DType::bf16, DType::f64})
        for (const bool adds : {false, true})
          EVERGRAD_CONFORMS(
              column_sum, ColumnSum, cat(shape, " into ", out, " adds ", adds), t,
              [&](Arguments& a) {
                return ColumnSum{a.x("x", shape, normal(1.0, 0.3)), a.out("out", out, {shape.cols()}, adds), adds};
              },
              [&](const Values& in, const Values&) {
                std::vector<double> absolute(std::size_t(shape.cols()), 0.0);
                for (std::size_t i = 0; i < in.at("x").size(); ++i)
                  absolute[i % absolute.size()] += std::abs(in.at("x")[i]);
                for (std::size_t c = 0; adds && c < absolute.size(); ++c) absolute[c] += std::abs(in.at("out")[c]);
                for (double& bound : absolute) bound = sum_error(shape.rows() + 1, bound);
                return Values{{"out", absolute}};
              });
  });
}

TEST_CASE("mean: agrees with the reference; the mean of nothing is 0") {
  for_each_activation([](DType t) {
    for (const std::int64_t n : {0, 1, 31, 32, 33, 65, 197, 257, 1025, 16385, 70001})
      for (const double scale : {1.0, -0.25})
        EVERGRAD_CONFORMS(
            mean, Mean, cat(n, " scale ", scale), t,
            [&](Arguments& a) {
              return Mean{a.x("x", {n}, normal(1.0, 0.5)), a.out("out", DType::f32, {1}), scale};
            },
            [&](const Values& in, const Values&) {
              return Values{
                  {"out",
                   {std::abs(scale) * sum_error(n, abs_sum(in.at("x"))) / double(std::max<std::int64_t>(1, n))}}};
            });
  });
}

TEST_CASE("dot: products are exact and added in double") {
  for (const DType p : {DType::f32, DType::bf16})
    for (const DType q : {DType::f32, DType::bf16})
      for (const std::int64_t n : {0, 1, 7, 8, 9, 31, 32, 33, 65, 197, 257, 1025, 16385, 70001})
        EVERGRAD_CONFORMS(
            dot, Dot, cat(p, " . ", q, " ", n), p,
            [&](Arguments& a) {
              return Dot{a.typed("a", p, {n}), a.typed("b", q, {n}), a.out("out", DType::f64, {1})};
            },
            [&](const Values& in, const Values&) {
              double absolute = 0.0;
              for (std::size_t i = 0; i < in.at("a").size(); ++i) absolute += std::abs(in.at("a")[i] * in.at("b")[i]);
              return Values{{"out", {sum_error(n, absolute, DType::f64)}}};
            });
}

namespace {

struct Counted {
  DType type;
  Shape shape;
  GeluKind kind;
  double tau;
  int absent;  // which of the seven counters is left out; 7: none
};

UnitStatistics counters(Arguments& a, const Counted& c) {
  const Shape units{c.shape.cols()};
  const auto counter = [&](int which, const char* name) {
    return which == c.absent ? TensorView{} : a.typed(name, DType::f64, units, integers(0, 9), Use::added);
  };
  UnitStatistics u;
  // An exact zero now and then: it is not positive.
  u.z = a.x("z", c.shape,
            [](const Key& k, std::int64_t i) { return i % 7 ? 2.0 * k.normal(std::uint64_t(i)) - 1.0 : 0.0; });
  u.positive = counter(0, "positive"), u.alive_magnitude = counter(1, "magnitude");
  u.alive_gradient = counter(2, "gradient"), u.sum_abs = counter(3, "sum");
  u.max_value = counter(4, "max"), u.sum = counter(5, "signed");
  if (c.absent != 6) u.rows = a.typed("rows", DType::f64, {1}, constant(3.0), Use::added);
  u.tau = c.tau, u.kind = c.kind;
  return u;
}

/// A count may differ by the rows whose value lies within the error of gelu (or of tau, a float on the cpu) around tau.
Values counter_bounds(const Counted& c, const Values& in) {
  const std::size_t units = std::size_t(c.shape.cols());
  std::map<std::string, std::vector<double>> all;
  for (const char* name : {"positive", "magnitude", "gradient", "sum", "max", "signed"}) all[name].assign(units, 0.0);
  std::vector<double> absolute(units, 0.0);
  const std::vector<double>& z = in.at("z");
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double y = reference::gelu(c.kind, z[i]), g = reference::gelu_gradient(c.kind, z[i]);
    const double ey = gelu_error(c.kind, z[i]), eg = gelu_gradient_error(c.kind, z[i]), et = stored(c.tau, DType::f32);
    all["magnitude"][i % units] += std::abs(std::abs(y) - c.tau) <= ey + et;
    all["gradient"][i % units] += std::abs(std::abs(g) - c.tau) <= eg + et;
    all["sum"][i % units] += ey;
    all["max"][i % units] = std::max(all["max"][i % units], ey);
    absolute[i % units] += std::abs(y);
  }
  for (std::size_t f = 0; f < units; ++f) all["sum"][f] += sum_error(c.shape.rows(), absolute[f]);
  all["signed"] = all["sum"];
  const char* const names[] = {"positive", "magnitude", "gradient", "sum", "max", "signed"};
  if (c.absent < 6) all.erase(names[c.absent]);
  return all;
}

}  // namespace

TEST_CASE("unit_statistics: counters agree with the reference and add to what they held") {
  for_each_activation([](DType t) {
    for (const Shape& shape : kMatrices)
      for (const GeluKind kind : {GeluKind::erf, GeluKind::tanh})
        for (const int absent : {7, 0, 1, 2, 3, 4, 5, 6}) {
          if (absent < 7 && shape.size() > 1000) continue;
          const Counted c{t, shape, kind, 0.01, absent};
          EVERGRAD_CONFORMS(
              unit_statistics, UnitStatistics, cat(shape, " kind ", int(kind), " without ", absent), t,
              [&](Arguments& a) { return counters(a, c); },
              [&](const Values& in, const Values&) { return counter_bounds(c, in); });
        }
  });
}

}  // namespace eg::test
