// tests/optim/test_sgd_adam.cpp - golden values of methods.md A.1 and A.2, on both devices.
#include "tests/optim/rig.h"

using namespace eg;
using namespace eg::test;

namespace {

/// The weight along f = x^2 / 2 from x = 1, whose gradient is x itself.
Values bowl(Device device, const std::string& method, double lr, double decay, int steps) {
  Rig rig(device, method, {{.start = {1.0}}}, lr, decay);
  Values path;
  for (int i = 0; i < steps; ++i) {
    rig.step(rig.weights());
    path.push_back(rig.weights()[0]);
  }
  return path;
}

Values along(Device device, const std::string& method, double lr, double decay, const Values& gradients) {
  Rig rig(device, method, {{.start = {1.0}}}, lr, decay);
  Values path;
  for (const double g : gradients) {
    rig.step(Values{g});
    path.push_back(rig.weights()[0]);
  }
  return path;
}

}  // namespace

TEST_CASE("sgd: momentum, Nesterov and coupled decay follow the published trajectories") {
  for (const Device d : kBoth) {
    check_close(bowl(d, "sgd:momentum=0.9", 0.1, 0.0, 4), {0.9, 0.72, 0.486, 0.2268}, d);
    check_close(bowl(d, "sgd:momentum=0.9:nesterov", 0.1, 0.0, 4), {0.81, 0.5751, 0.327321, 0.09388791}, d);
    check_close(bowl(d, "sgd:momentum=0.9", 0.1, 0.1, 2), {0.89, 0.6931}, d);
  }
}

TEST_CASE("sgd: without momentum Nesterov and dampening change nothing") {
  for (const Device d : kBoth) {
    const Values plain = bowl(d, "sgd:momentum=0", 0.1, 0.0, 5);
    CHECK(bowl(d, "sgd:momentum=0:nesterov", 0.1, 0.0, 5) == plain);
    CHECK(bowl(d, "sgd:momentum=0:dampening=0.5", 0.1, 0.0, 5) == plain);
    check_close(plain, {0.9, 0.81, 0.729, 0.6561, 0.59049}, d);
  }
}

TEST_CASE("sgd: dampening leaves the first step alone, and decoupled decay stays out of the momentum") {
  for (const Device d : kBoth) {
    // b: 1, then 0.9 + 0.5 * 1; w: 0.9, 0.9 - 0.1 * 1.4
    check_close(along(d, "sgd:momentum=0.9:dampening=0.5", 0.1, 0.0, {1, 1}), {0.9, 0.76}, d);
    // w = (1 - 0.1 * 0.1) w - 0.1 b with b = 1, 1.9
    check_close(along(d, "sgd:momentum=0.9:decoupled", 0.1, 0.1, {1, 1}), {0.89, 0.99 * 0.89 - 0.19}, d);
  }
}

TEST_CASE("adam: AdamW and Adam with coupled decay follow the published trajectories") {
  for (const Device d : kBoth) {
    check_close(along(d, "adamw", 0.01, 0.1, {1, -0.5, 2}), {0.9890000001, 0.9853476297370, 0.9777811661544}, d);
    check_close(along(d, "adam", 0.01, 0.1, {1, -0.5, 2}), {0.9900000000909, 0.9862548205788, 0.9792654304395}, d);
  }
}

TEST_CASE("adam: the first step has the size of the learning rate, whatever the gradient's") {
  for (const Device d : kBoth)
    for (const double g : {1e-4, 1.0, -3e5})
      check_close(along(d, "adamw", 0.01, 0.0, {g}), {1.0 - std::copysign(0.01, g)}, d, 1.0, 2e-6);
}

TEST_CASE("adam: scaling every gradient leaves the trajectory alone, and a zero gradient only decays") {
  for (const Device d : kBoth) {
    const Values a = along(d, "adamw:eps=1e-30", 0.01, 0.0, {1, -0.5, 2}),
                 b = along(d, "adamw:eps=1e-30", 0.01, 0.0, {1024, -512, 2048});
    CHECK(a == b);  // a power of two: every intermediate is scaled exactly
    check_close(along(d, "adamw", 0.01, 0.1, {0, 0}), {0.999, 0.998001}, d);
  }
}

TEST_CASE("adam: a replaced unit counts its own steps, so that its first update is not three times too long") {
  for (const Device d : kBoth) {
    const DType t = d.statistic();
    StepRecord step;
    step.slot[0] = {.lr = 0.01, .t = 1'000'000};
    const Segment all{0, 6};
    const auto zeros = [&] { return Tensor::zeros({6}, t, d); };
    Tensor w = zeros(), m = zeros(), v = zeros();
    const Tensor g = Tensor::from(Values(6, 2.0), {6}, t, d);
    const std::vector<std::int32_t> rows = {0, 1'000'000}, columns = {1'000'000, 1'000'000, 0};
    AdamUpdate a{
        .weight = w.view(), .grad = g.view(), .m = m.view(), .v = v.view(), .segments = {&all, 1}, .step = &step};
    const Tensor row_steps = Tensor::from(std::span<const std::int32_t>(rows), {2}, d);
    const Tensor column_steps = Tensor::from(std::span<const std::int32_t>(columns), {3}, d);
    a.row_steps = row_steps.view(), a.column_steps = column_steps.view(), a.rows = 2, a.columns = 3;
    EVERGRAD_CALL(d, adam_update, a);
    // 0.1 g / sqrt(0.001 g^2) = sqrt(10) for old elements whose moments are zero; 1 for new rows and columns.
    const double stale = -0.01 * std::sqrt(10.0);
    check_close(w.to_host(), {-0.01, -0.01, -0.01, stale, stale, -0.01}, d, 1.0, 1e-8);
  }
}

TEST_CASE(
    "adam: after its state was cleared at a late step, the first update has the size of the learning rate again") {
  for (const Device d : kBoth)
    for (const char* method : {"adamw", "adam", "arrow", "norm-control"}) {
      CAPTURE(method);
      Rig rig(d, method, {{.start = {1.0}}, {.start = {1.0}, .name = "w", .block = -1}}, 0.01, 0.0);
      for (int i = 0; i < 3; ++i) rig.step(std::vector<Values>{{0.5}, {0.5}});
      for (StepSlot& slot : rig.record.slot) slot.t = 1'000'000;
      StepContext ctx = rig.context();
      rig.optimizer->task_boundary(ctx, false);
      const Values before = rig.weights(1), taken = rig.taken(std::vector<Values>{{2.0}, {2.0}});
      check_close(taken, {0.01}, d, 1.0, 1e-8);  // 0.0316 with the old count
      check_close({before[0] - rig.weights(1)[0]}, {0.01}, d, 1.0, 1e-8);
    }
}

TEST_CASE("weight decay: only parameters that ask for it are decayed") {
  for (const Device d : kBoth)
    for (const char* method : {"adamw", "sgd:decoupled:momentum=0"}) {
      Rig rig(d, method,
              {{.start = {1.0}}, {.start = {1.0}, .name = "blocks.0.attn.proj.bias", .decays = false, .shape = {1}}},
              0.1, 0.5);
      rig.step(std::vector<Values>{{0.0}, {0.0}});
      check_close(rig.weights(0), {0.95}, d);
      CHECK(rig.weights(1) == Values{1.0});
    }
}

TEST_CASE("frozen parameters: no method moves them") {
  for (const Device d : kBoth)
    for (const char* method : {"adamw", "adam", "sgd", "arrow:warmup=none"}) {
      Rig rig(d, method,
              {{.start = {1.0, 2.0}},
               {.start = {3.0}, .name = "blocks.0.attn.proj2.weight", .frozen = true},
               {.start = {4.0}, .name = "w", .module = Module::none, .block = -1}},
              0.1, 0.5);
      rig.step(std::vector<Values>{{1.0, 1.0}, {1.0}, {1.0}});
      CHECK(rig.weights(1) == Values{3.0});
      CHECK(rig.weights(0)[0] < 1.0);
      CHECK(rig.weights(2)[0] < 4.0);
    }
}

TEST_CASE("clipping: the global norm scales every gradient alike") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0", {{.start = {0.0}}, {.start = {0.0}, .name = "w2"}}, 1.0, 0.0, /*max_norm=*/1.0);
    rig.step(std::vector<Values>{{3.0}, {4.0}});
    check_close(rig.weights(0), {-0.6}, d);
    check_close(rig.weights(1), {-0.8}, d);
    CHECK(rig.record.grad_norm_sq == doctest::Approx(25.0));
    rig.step(std::vector<Values>{{0.3}, {0.4}});  // inside the ball: untouched
    check_close(rig.weights(0), {-0.9}, d);
    CHECK(rig.record.clip_scale == 1.0);
  }
}
