// tests/optim/test_spectral.cpp - penalties on singular values: golden values, slopes and invariants of methods.md B.6.
#include <cmath>
#include <limits>

#include "tests/optim/dense.h"

namespace eg::test {
namespace {

Piece matrix(const Shape& shape, Values start, Module module = Module::proj) {
  Piece p{std::move(start)};
  p.shape = shape, p.module = module;
  return p;
}
Piece bias(Values start) {
  Piece p = matrix({std::int64_t(start.size())}, start, Module::head);
  p.name = "head.bias", p.block = -1, p.role = Role::head;
  return p;
}
Piece gain(Values start) {
  Piece p = matrix({std::int64_t(start.size())}, start, Module::norm1);
  p.name = "blocks.0.norm1.weight", p.role = Role::norm, p.init = {Init::Rule::ones};
  return p;
}

/// What the penalty adds to a gradient of zeros, after `steps` of power iteration on weights that stand still.
std::vector<Values> slopes(Device d, const std::string& method, const std::vector<Piece>& pieces, int steps = 400) {
  Rig rig(d, "sgd:momentum=0+" + method, pieces, 0.0);
  std::vector<Values> none, all;
  for (const Piece& p : pieces) none.emplace_back(p.start.size(), 0.0);
  for (int i = 0; i < steps; ++i) rig.step(none);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    CHECK(rig.weights(i) == pieces[i].start);
    all.push_back(rig.list[i]->grad.to_host());
  }
  return all;
}

double largest_singular_value(const Values& w, std::size_t rows, std::size_t cols) {
  Values u(rows, 1.0), v(cols);
  double sigma = 0.0;
  for (int i = 0; i < 3000; ++i) {
    v.assign(cols, 0.0);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < cols; ++c) v[c] += w[r * cols + c] * u[r];
    v = scaled(v, 1.0 / length(v));
    for (std::size_t r = 0; r < rows; ++r)
      u[r] = dot(v, Values(w.begin() + std::ptrdiff_t(r * cols), w.begin() + std::ptrdiff_t((r + 1) * cols)));
    sigma = length(u);
    u = scaled(u, 1.0 / sigma);
  }
  return sigma;
}

/// Squared Frobenius norm of W W^T - s I, or of W^T W - s I for a tall W.
double parseval(const Values& w, std::size_t rows, std::size_t cols, double s) {
  const bool tall = rows > cols;
  const std::size_t n = std::min(rows, cols), m = std::max(rows, cols);
  double sum = 0.0;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      double entry = i == j ? -s : 0.0;
      for (std::size_t k = 0; k < m; ++k)
        entry += tall ? w[k * cols + i] * w[k * cols + j] : w[i * cols + k] * w[j * cols + k];
      sum += entry * entry;
    }
  return sum;
}

/// Central differences of f at w against a gradient: h leaves a relative error of h^2 and of 2^-53 / h.
void check_slope(const std::function<double(const Values&)>& f, const Values& w, const Values& gradient) {
  const double h = 6.1e-6;
  for (std::size_t i = 0; i < w.size(); ++i) {
    Values up = w, down = w;
    up[i] += h, down[i] -= h;
    const double numeric = (f(up) - f(down)) / (2.0 * h);
    CAPTURE(i);
    CHECK(std::abs(numeric - gradient[i]) <= 1e-8 + 1e-6 * std::max(std::abs(numeric), std::abs(gradient[i])));
  }
}

}  // namespace

TEST_CASE("spectral: diag(2, 1) at k = 1 has its slope, twice the strength, in one entry alone") {
  for (const Device d : kBoth) {
    const Values g = slopes(d, "spectral:strength=0.25:k=1", {matrix({2, 2}, {2.0, 0.0, 0.0, 1.0})})[0];
    check_close(g, {0.5, 0.0, 0.0, 0.0}, d, 4.0);
  }
}

TEST_CASE("spectral: the slope is that of strength (sigma^k - 1)^2, by finite differences, q, k and v each its own") {
  for (const int k : {1, 2, 3}) {
    const Values w = draw(1, 12), fused = draw(2, 24);
    const std::string method = cat("spectral:strength=0.3:k=", k);
    const auto penalty = [&](const Values& x, std::size_t rows, std::size_t cols) {
      return 0.3 * std::pow(std::pow(largest_singular_value(x, rows, cols), k) - 1.0, 2.0);
    };
    check_slope([&](const Values& x) { return penalty(x, 3, 4); }, w,
                slopes(kReference, method, {matrix({3, 4}, w)})[0]);
    const auto thirds = [&](const Values& x) {
      double sum = 0.0;
      for (std::size_t part = 0; part < 3; ++part)
        sum += penalty(Values(x.begin() + std::ptrdiff_t(8 * part), x.begin() + std::ptrdiff_t(8 * part + 8)), 2, 4);
      return sum;
    };
    check_slope(thirds, fused, slopes(kReference, method, {matrix({6, 4}, fused, Module::qkv)})[0]);
  }
}

TEST_CASE("spectral: a bias pays strength |b|^2k, a gain is pulled to one, and both can be left out") {
  const Values b{0.5, -1.5, 0.25}, g{1.0, 0.5, 2.0};
  for (const int k : {1, 2, 3}) {
    const std::vector<Values> all = slopes(kReference, cat("spectral:strength=0.3:k=", k), {bias(b), gain(g)}, 2);
    check_slope([&](const Values& x) { return 0.3 * std::pow(length(x), 2.0 * k); }, b, all[0]);
  }
  for (const Device d : kBoth) {
    check_close(slopes(d, "spectral:strength=0.3", {gain(g)}, 2)[0], {0.0, -0.3, 0.6}, d, 2.0, 1e-7);
    const auto without = slopes(d, "spectral:biases=false:norms=false", {bias(b), gain(g)}, 2);
    CHECK(without[0] == Values(3, 0.0));
    CHECK(without[1] == Values(3, 0.0));
    CHECK(slopes(d, "spectral:head=false", {bias(b)}, 2)[0] == Values(3, 0.0));
  }
}

TEST_CASE("spectral: trained with nothing else, the largest singular value becomes one and smaller ones stay") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0+spectral:strength=1:k=2", {matrix({2, 2}, {3.0, 0.0, 0.0, 0.5})}, 0.005);
    for (int i = 0; i < 600; ++i) rig.step(Values(4, 0.0));
    const Values w = rig.weights();
    CHECK(w[0] == doctest::Approx(1.0).epsilon(1e-3));
    CHECK(w[3] == doctest::Approx(0.5).epsilon(1e-2));
    CHECK(rig.optimizer->scalars().at("spectral.largest") == doctest::Approx(1.0).epsilon(1e-3));
  }
}

TEST_CASE("spectral: a step with a gradient that is not finite leaves no trace in the vectors") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd+spectral", {matrix({3, 4}, draw(3, 12))}, 0.1);
    rig.step(draw(4, 12));
    const auto before = rig.bits();
    Values bad = draw(5, 12);
    bad[2] = std::numeric_limits<double>::quiet_NaN();
    rig.step(bad);
    const auto after = rig.bits();
    for (std::size_t i = 0; i < before.size(); ++i)
      if (i != 1) CHECK(before[i] == after[i]);  // 1 is the step record, which counts
  }
}

TEST_CASE("parseval: the slope is that of strength |W W^T - s I|^2 over the smaller side, and zero for isometries") {
  for (const Shape& shape : {Shape{3, 4}, Shape{4, 3}, Shape{3, 3}}) {
    const auto rows = std::size_t(shape.rows()), cols = std::size_t(shape.cols());
    const Values w = draw(6, rows * cols);
    for (const double s : {1.0, 0.25}) {
      const Values g = slopes(kReference, cat("parseval:strength=0.3:s=", s), {matrix(shape, w)}, 1)[0];
      check_slope([&](const Values& x) { return 0.3 * parseval(x, rows, cols, s); }, w, g);
    }
  }
  for (const Device d : kBoth) {
    const double c = 0.6, s = 0.8;
    check_close(slopes(d, "parseval:strength=1", {matrix({2, 2}, {1.0, 0.0, 0.0, -1.0})}, 1)[0], Values(4, 0.0), d);
    check_close(slopes(d, "parseval:strength=1:s=4", {matrix({2, 2}, {0.0, 2.0, -2.0, 0.0})}, 1)[0], Values(4, 0.0), d);
    if (d == kReference)
      check_close(slopes(d, "parseval:strength=1", {matrix({2, 2}, {c, -s, s, c})}, 1)[0], Values(4, 0.0), d);
  }
}

}  // namespace eg::test
