// tests/optim/test_dash.cpp - golden values and invariants of methods.md B.11.
#include <cmath>

#include "tests/optim/dense.h"

namespace eg::test {
namespace {

Piece matrix(const Shape& shape, Values start, Module module = Module::fc1) {
  Piece p{std::move(start)};
  p.shape = shape, p.module = module;
  return p;
}

/// The boundary before task 1, whose batches have these gradients: batches[i][p] belongs to parameter p.
void next_task(Rig& rig, const std::vector<std::vector<Values>>& batches, bool head_changed = false) {
  StepContext ctx = rig.context();
  ctx.task = 1, ctx.head_changed = head_changed;
  ctx.gradients_of_task = [&](const std::function<void()>& each) {
    for (const auto& gradients : batches) {
      for (std::size_t p = 0; p < gradients.size(); ++p)
        rig.list[p]->grad.copy_from(
            Tensor::from(gradients[p], rig.list[p]->shape, rig.list[p]->grad.dtype(), rig.arena.device));
      each();
    }
  };
  rig.optimizer->task_boundary(ctx, true);
}

Values after(Device d, const std::string& options, const Values& w, const Values& gradient, const Shape& shape = {}) {
  Rig rig(d, "dash" + options, {matrix(shape.rank() ? shape : Shape{1, std::int64_t(w.size())}, w)});
  next_task(rig, {{gradient}});
  return rig.weights();
}

}  // namespace

TEST_CASE("dash: golden values; what points the way that the new task descends is kept, the rest shrunk") {
  for (const Device d : kBoth) {
    check_close(after(d, "", {1.0, 0.0}, {-1.0, -1.0}), {0.7071067811865, 0.0}, d);  // E = (1, 1)
    check_close(after(d, ":lambda=0.3", {1.0, 0.0}, {1.0, 0.0}), {0.3, 0.0}, d);     // E = (-1, 0)
    check_close(after(d, "", {1.0, 0.0}, {-5.0, 0.0}), {1.0, 0.0}, d);
    // Each row its own factor.
    check_close(after(d, ":lambda=0.1", {1.0, 0.0, 0.0, -2.0}, {-1.0, -1.0, 0.0, 3.0}, {2, 2}),
                {0.7071067811865, 0.0, 0.0, -2.0}, d, 2.0);
  }
}

TEST_CASE("dash: a row never grows and never turns, and lambda=1 is the identity, bit for bit") {
  for (const Device d : kBoth)
    for (int i = 0; i < 5; ++i) {
      const Values w = draw(i, 20), g = draw(i, 20, 1);
      CHECK(after(d, ":lambda=1", w, g, {4, 5}) == w);
      const Values shrunk = after(d, ":lambda=0.2", w, g, {4, 5});
      for (std::size_t k = 0; k < w.size(); ++k) {
        const double share = shrunk[k] / w[k];
        CHECK(share <= 1.0);
        CHECK(share >= 0.2 - 1e-6);
        CHECK(share == doctest::Approx(shrunk[k / 5 * 5] / w[k / 5 * 5]).epsilon(1e-6));
      }
    }
}

TEST_CASE("dash: later batches weigh more, as (1 - alpha)^age") {
  for (const Device d : kBoth) {
    Rig rig(d, "dash:alpha=0.25:lambda=0", {matrix({1, 2}, {1.0, 1.0})});
    next_task(rig, {{{-4.0, 0.0}}, {{0.0, -4.0}}});  // E = (0.75, 1)
    const double s = 1.75 / std::sqrt(2.0 * (0.75 * 0.75 + 1.0));
    check_close(rig.weights(), {s, s}, d);
    CHECK(rig.optimizer->scalars().at("dash.kept") == doctest::Approx(s));
  }
}

TEST_CASE("dash: norms stay, a bias is one row, and a new head is left alone") {
  for (const Device d : kBoth) {
    Piece norm = matrix({2}, {1.0, -1.0}, Module::norm1), bias = matrix({2}, {1.0, 0.0}, Module::fc1);
    norm.role = Role::norm, bias.role = Role::bias, norm.name = "norm", bias.name = "bias";
    Piece head = matrix({2, 1}, {1.0, 1.0}, Module::head);
    head.role = Role::head, head.block = -1;
    for (const bool changed : {false, true}) {
      Rig rig(d, "dash", {norm, bias, head});
      next_task(rig, {{{5.0, 5.0}, {-1.0, -1.0}, {1.0, -1.0}}}, changed);
      CHECK(rig.weights(0) == norm.start);
      check_close(rig.weights(1), {0.7071067811865, 0.0}, d);
      check_close(rig.weights(2), {changed ? 1.0 : 0.3, 1.0}, d);
    }
  }
}

TEST_CASE("dash: the optimizer starts anew unless told otherwise; the bf16 copy follows; other loops are refused") {
  for (const bool clears : {true, false}) {
    Rig rig(kCpu, clears ? "dash" : "dash:clear-optimizer=false", {matrix({1, 2}, {1.0, 0.5})}, 0.1, 0.0, 0.0,
            DType::bf16);
    rig.step(Values{1.0, -1.0});
    next_task(rig, {{{-1.0, -1.0}}});
    CHECK(rig.record.slot[0].t == (clears ? 0 : 1));
    CHECK(rig.list[0]->value.to_host()[1] == double(bf16(rig.weights()[1])));
  }
  Rig rig(kCpu, "dash", {matrix({1, 2}, {1.0, 0.5})});
  StepContext ctx = rig.context();
  ctx.task = 1;
  CHECK(contains(usage_error([&] { rig.optimizer->task_boundary(ctx, true); }), "evergrad continual"));
}

}  // namespace eg::test
