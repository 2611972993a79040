// tests/optim/test_snr.cpp - self-normalised resets: ages, thresholds and invariants of methods.md B.3.
#include "tests/optim/rig.h"

namespace eg::test {
namespace {

/// One MLP with `units` hidden units of three inputs and two outputs.
std::vector<Piece> mlp(std::int64_t units) {
  const auto n = std::size_t(units);
  return {{.start = Values(3 * n, 0.5),
           .name = "blocks.0.mlp.fc1.weight",
           .module = Module::fc1,
           .shape = {units, 3},
           .init = {Init::Rule::normal, 0.5},
           .link = {0, 1, 2}},
          {.start = Values(n, 0.1), .name = "blocks.0.mlp.fc1.bias", .module = Module::fc1, .shape = {units}},
          {.start = Values(2 * n, 1.0), .name = "blocks.0.mlp.fc2.weight", .module = Module::fc2, .shape = {2, units}}};
}
std::vector<Values> gradients(std::int64_t units, double value) {
  const auto n = std::size_t(units);
  return {Values(3 * n, value), Values(n, value), Values(2 * n, value)};
}
Values state(Rig& rig, const std::string& name) {
  Values values;
  rig.optimizer->visit_state([&](const std::string& n, Tensor& t) {
    if (n == name) values = t.to_host();
  });
  REQUIRE(!values.empty());
  return values;
}
/// The numbers, from 1, of the steps in which somebody was replaced.
std::vector<int> resets(Rig& rig, int steps) {
  std::vector<int> all;
  double before = rig.optimizer->scalars().at("snr.replaced");
  for (int i = 1; i <= steps; ++i) {
    rig.step(gradients(std::int64_t(rig.firing.size()), 0.0));
    const double now = rig.optimizer->scalars().at("snr.replaced");
    for (double k = before; k < now; ++k) all.push_back(i);
    before = now;
  }
  return all;
}
void next_task(Rig& rig, std::int64_t task) {
  StepContext ctx = rig.context();
  ctx.task = task;
  rig.optimizer->task_boundary(ctx, true);
}

}  // namespace

TEST_CASE("snr: who fires in every batch is never replaced, who never fires after tau / B batches, rounded up") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0+snr:tau-max=100", mlp(3), 0.1);
    rig.images = 30, rig.firing = {1.0, 0.0, 1.0};
    CHECK(resets(rig, 12) == std::vector<int>{4, 8, 12});
    CHECK(state(rig, "snr.age.0") == Values{0.0, 0.0, 0.0});
    const Values out = rig.weights(2), bias = rig.weights(1), in = rig.weights(0);
    CHECK(out == Values{1.0, 0.0, 1.0, 1.0, 0.0, 1.0});
    CHECK(bias[1] == 0.0);
    CHECK((in[3] != 0.5 && in[3] != in[4]));
    CHECK(in[0] == 0.5);
    rig.images = 100;
    CHECK(resets(rig, 2) == std::vector<int>{1, 2});
  }
}

TEST_CASE("snr: a unit fires at a share of its entries; at share zero one entry is enough") {
  for (const Device d : kBoth) {
    const auto ages = [&](const std::string& options) {
      Rig rig(d, "sgd:momentum=0+snr" + options, mlp(4), 0.1);
      rig.images = 10, rig.firing = {0.0, 0.005, 0.01, 0.5};  // of one row
      resets(rig, 2);
      return state(rig, "snr.age.0");
    };
    CHECK(ages("") == Values{20.0, 20.0, 0.0, 0.0});
    CHECK(ages(":fire=0") == Values{20.0, 0.0, 0.0, 0.0});
    CHECK(ages(":fire=0.5") == Values{20.0, 20.0, 20.0, 0.0});
  }
}

TEST_CASE("snr: the threshold becomes the quantile of the unit's own silences, or grows") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0+snr:tasks=2:tau-min=20", mlp(3), 0.1);
    rig.images = 50;
    const auto three_steps = [&](bool third_fires) {  // unit 0 in one of three, unit 1 in all, unit 2 in none
      for (int i = 0; i < 3; ++i) {
        rig.firing = {i == 2 && third_fires ? 1.0 : 0.0, 1.0, 0.0};
        resets(rig, 1);
      }
    };
    for (int i = 0; i < 10; ++i) three_steps(true);
    CHECK(state(rig, "snr.tau.0") == Values{20000.0, 20000.0, 20000.0});
    next_task(rig, 1);  // the first of two
    CHECK(state(rig, "snr.tau.0") == Values{20000.0, 20000.0, 20000.0});
    next_task(rig, 2);
    // Unit 0 was silent for 100 images, which lies in the bucket of 90 to 106; nothing is known of unit 2, and twenty
    // thousand is the most.
    CHECK(state(rig, "snr.tau.0") == Values{106.0, 20.0, 20000.0});
    for (const double c : state(rig, "snr.histogram.0")) REQUIRE(c == 0.0);
    // Once the usual silence is no longer below the threshold, it doubles, and comes down again.
    three_steps(true);
    next_task(rig, 3), next_task(rig, 4);
    CHECK(state(rig, "snr.tau.0") == Values{212.0, 20.0, 20000.0});
    three_steps(true);
    next_task(rig, 5), next_task(rig, 6);
    CHECK(state(rig, "snr.tau.0") == Values{106.0, 20.0, 20000.0});
    CHECK(rig.optimizer->scalars().at("snr.replaced") == 0.0);
    // A third silent batch is more than unit 0 ever had.
    three_steps(false);
    CHECK(rig.optimizer->scalars().at("snr.replaced") == 1.0);
    CHECK(rig.weights(2)[0] == 0.0);
  }
}

TEST_CASE("snr: a quantile leaves out the rare long silences, and a replacement enters the history") {
  Rig rig(kReference, "sgd:momentum=0+snr:tasks=1:tau-min=1:quantile=0.9", mlp(1), 0.1);
  const auto silences = [&](int many, int length) {
    for (int i = 0; i < many; ++i) {
      rig.firing = {0.0}, resets(rig, length);
      rig.firing = {1.0}, resets(rig, 1);
    }
  };
  silences(9, 3), silences(1, 500);
  next_task(rig, 1);
  CHECK(state(rig, "snr.tau.0") == Values{3.0});
  rig.firing = {0.0};
  CHECK(resets(rig, 7) == std::vector<int>{3, 6});
  const Values histogram = state(rig, "snr.histogram.0");
  double noted = 0.0;
  for (const double c : histogram) noted += c;
  CHECK(noted == 2.0);
  CHECK(histogram[8] == 2.0);  // four buckets per doubling of 1 + 3
}

TEST_CASE("snr: with a threshold that nobody reaches no bit changes, and mistakes are named") {
  for (const Device d : kBoth) {
    Rig with(d, "adamw+snr:tau-max=1e15", mlp(4)), without(d, "adamw", mlp(4));
    with.firing = {0.0, 0.0, 1.0, 0.0};
    for (int i = 0; i < 9; ++i) with.step(gradients(4, 1.0)), without.step(gradients(4, 1.0)), next_task(with, i + 1);
    for (std::size_t p = 0; p < 3; ++p) CHECK(with.weights(p) == without.weights(p));
  }
  const auto made = [](const std::string& method) { return usage_error([&] { Rig(kCpu, method, mlp(2)); }); };
  CHECK(contains(made("snr:tau-min=200:tau-max=100"), "above"));
  CHECK(contains(made("snr:quantile=2"), "quantile"));
  CHECK(contains(usage_error([] { Rig(kCpu, "snr", {{{1.0}}}); }), "no MLP"));
}

}  // namespace eg::test
