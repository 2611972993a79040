// tests/optim/test_fire.cpp - golden values and invariants of methods.md B.12.
#include <cmath>

#include "tests/optim/dense.h"

namespace eg::test {
namespace {

Piece fused(std::int64_t rows, std::int64_t cols, Values start) {
  Piece p{std::move(start)};
  p.name = "blocks.0.attn.qkv.weight", p.module = Module::qkv, p.shape = {rows, cols};
  return p;
}

void next_task(Rig& rig, std::int64_t task) {
  StepContext ctx = rig.context();
  ctx.task = task;
  rig.optimizer->task_boundary(ctx, true);
  CHECK(ctx.weights_changed == (task > 0));
}

/// q, k and v after the boundary, where all three were `w` before.
Values third_of(const Rig& rig, std::size_t part) {
  const Values all = rig.weights();
  const auto n = std::ptrdiff_t(all.size() / 3), begin = std::ptrdiff_t(part) * n;
  return {all.begin() + begin, all.begin() + begin + n};
}
Values three_times(const Values& w) {
  Values all;
  for (int i = 0; i < 3; ++i) all.insert(all.end(), w.begin(), w.end());
  return all;
}
Values after(Device d, std::int64_t rows, std::int64_t cols, const Values& w, const std::string& options = "") {
  Rig rig(d, "fire" + options, {fused(3 * rows, cols, three_times(w))});
  next_task(rig, 1);
  return third_of(rig, 0);
}

/// An iteration adds terms of at most 1.5 + 0.5, sums of n products, and its slope is at most 1.5.
double error_of(Device d, std::int64_t n, int iterations) {
  double error = d == kReference ? 1e-12 : unit_roundoff(DType::f32);
  for (int i = 0; i < iterations && d != kReference; ++i) error = 1.5 * error + sum_error(n, 2.0);
  return error;
}

}  // namespace

TEST_CASE("fire: golden values; q and k become isometries, v keeps its bits, and so does all in the first task") {
  for (const Device d : kBoth) {
    const Values start = three_times({2.0, 1.0, 0.0, 1.0});
    Rig rig(d, "fire:iterations=15", {fused(6, 2, start)});
    next_task(rig, 0);
    CHECK(rig.weights() == start);
    next_task(rig, 1);
    for (const std::size_t part : {0u, 1u})
      check_close(third_of(rig, part), {0.948683298, 0.316227766, -0.316227766, 0.948683298}, d,
                  error_of(d, 2, 15) / sum_error(4, 1.0));
    CHECK(third_of(rig, 2) == Values{2.0, 1.0, 0.0, 1.0});
  }
}

TEST_CASE("fire: ten iterations bring singular values as far as published, and no further") {
  const std::pair<double, double> golden[] = {
      {0.001, 0.0576}, {0.005, 0.282}, {0.01, 0.529}, {0.02, 0.849}, {0.05, 0.99953}};
  const double digits[] = {5e-5, 5e-4, 5e-4, 5e-4, 5e-6};
  for (const Device d : kBoth)
    for (std::size_t i = 0; i < 5; ++i) {
      const double s = golden[i].first, reached = golden[i].second;
      const Values w = after(d, 2, 2, {s, 0.0, 0.0, std::sqrt(1.0 - s * s)});
      CAPTURE(s);
      CHECK(std::abs(w[0] - reached) <= digits[i] + error_of(d, 2, 10));
    }
}

TEST_CASE("fire: a wide or tall matrix is scaled by sqrt(rows / cols), and a second time nothing moves") {
  for (const Device d : kBoth)
    for (const Shape& shape : {Shape{3, 5}, Shape{5, 3}, Shape{4, 4}}) {
      const std::int64_t rows = shape.rows(), cols = shape.cols();
      const auto n = std::size_t(rows * cols);
      const Values w = after(d, rows, cols, draw(7, n), ":iterations=30");
      // All singular values are sqrt(rows / cols), so the squares of the entries sum to that of min(rows, cols) of them.
      CHECK(length(w) == doctest::Approx(std::sqrt(double(std::min(rows, cols) * rows) / double(cols))).epsilon(1e-5));
      const Values again = after(d, rows, cols, w, ":iterations=30");
      for (std::size_t i = 0; i < n; ++i)
        CHECK(std::abs(again[i] - w[i]) <= 1e-9 + (d == kReference ? 0.0 : 30.0 * sum_error(5, 2.0)));
    }
}

TEST_CASE("fire: a rotated matrix gives the rotated isometry, a larger one the same") {
  for (const Device d : kBoth) {
    const Values w = draw(8, 4);
    const double c = std::cos(0.7), s = std::sin(0.7);
    const Values rotated{c * w[0] - s * w[2], c * w[1] - s * w[3], s * w[0] + c * w[2], s * w[1] + c * w[3]};
    const Values a = after(d, 2, 2, w, ":iterations=20"), b = after(d, 2, 2, rotated, ":iterations=20");
    const Values wanted{c * a[0] - s * a[2], c * a[1] - s * a[3], s * a[0] + c * a[2], s * a[1] + c * a[3]};
    // The iteration converges quadratically, so that only the last rounding stays; the start's error is divided by the
    // smallest singular value, 0.24 of these numbers.
    for (std::size_t i = 0; i < 4; ++i)
      CHECK(std::abs(b[i] - wanted[i]) <= (d == kReference ? 1e-11 : 20.0 * sum_error(4, 2.0)));
    const Values larger = after(d, 2, 2, scaled(w, 1024.0), ":iterations=20");
    CHECK(larger == a);
  }
}

TEST_CASE("fire: zeros stay, tensors=qkvom takes every matrix, and the bf16 copy follows") {
  Rig nothing(kCpu, "fire", {fused(6, 2, Values(12, 0.0))});
  next_task(nothing, 1);
  CHECK(nothing.weights() == Values(12, 0.0));
  Piece mlp{{2.0, 1.0, 0.0, 1.0}};
  mlp.name = "blocks.0.mlp.fc1.weight", mlp.module = Module::fc1, mlp.shape = {2, 2};
  Rig all(kCpu, "fire:tensors=qkvom:iterations=15", {mlp, fused(6, 2, three_times({2.0, 1.0, 0.0, 1.0}))}, -1.0, 0.0,
          0.0, DType::bf16);
  next_task(all, 1);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(all.weights(0)[i] == all.weights(1)[i + 8]);
    CHECK(all.list[0]->value.to_host()[i] == double(bf16(all.weights(0)[i])));
  }
  const auto made = [](const std::string& m) { return usage_error([&] { Rig(kCpu, m, {{{1.0}}}); }); };
  CHECK(contains(made("fire:tensors=x"), "output projection"));
}

}  // namespace eg::test
