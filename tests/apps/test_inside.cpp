// tests/apps/test_inside.cpp - looks at a network from inside: what they report is so, and they change nothing.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "apps/diagnosis/contribution.h"
#include "apps/diagnosis/counterfactual.h"
#include "apps/diagnosis/diagnosis.h"
#include "apps/diagnosis/sharpness.h"
#include "tests/apps/tiny_trainer.h"
#include "tests/tolerance.h"

using namespace eg;
using namespace eg::test;

TEST_CASE("trainer: evaluation and diagnosis change no weight, no state and no later step") {
  const OneThread one;
  const Images images;
  for (const char* method : {"adamw", "sgd", "arrow:window=2", "norm-control:window=2"}) {
    INFO(method);
    TrainerConfig config = tiny(method);
    config.ema = 0.9;
    config.vit.drop_path = 0.2;
    Trainer looked_at(config), left_alone(config);
    for (int epoch = 0; epoch < 2; ++epoch) {
      train_one_epoch(looked_at, images);
      train_one_epoch(left_alone, images);
      const std::vector<std::string> before = bytes_of(looked_at);
      CHECK(before == bytes_of(left_alone));
      Loader test = images.loader(Split::test), own = images.loader(Split::test), fixed = images.loader(Split::test);
      looked_at.evaluate(test);
      Probe probe(looked_at, {.fixed_images = fixed.samples(), .map_images = 3});
      probe.task_begins();
      probe.before_update(0, 1), probe.after_update(0, 1);
      Diagnosis d = probe.measure(own, fixed);
      CHECK(bytes_of(looked_at) == before);
      Loader again = images.loader(Split::test);
      const auto accuracy = [&] {
        Loader some = images.loader(Split::test);
        return looked_at.evaluate(some).accuracy;
      };
      Loader some = images.loader(Split::test);
      measure_fragility(looked_at, some, accuracy, 0.25, d);
      measure_restores(looked_at, std::vector<double>(std::size_t(looked_at.arena().size), 0.0), accuracy, d);
      measure_sharpness(looked_at, *again.next(), {}, adam_preconditioner(looked_at, config.method), d);
      CHECK(d.model.contains("hessian.preconditioned_top") == (config.method.name == "adamw"));
      CHECK(bytes_of(looked_at) == before);
      looked_at.begin_task(epoch + 1, "fresh", true);
      left_alone.begin_task(epoch + 1, "fresh", true);
    }
  }
}

TEST_CASE("counterfactual: a module that did not move loses nothing, one that did is put back alone") {
  const OneThread one;
  const Images images;
  Trainer trainer(tiny("adamw"));
  const std::vector<double> before = trainer.arena().master.to_host();
  for (int epoch = 0; epoch < 3; ++epoch) train_one_epoch(trainer, images);
  const std::vector<double> after = trainer.arena().master.to_host();
  const std::vector<ModuleView> modules = block_modules(trainer.params());
  std::vector<std::vector<double>> looked_at;  // the weights of every test
  const auto accuracy = [&] {
    looked_at.push_back(trainer.arena().master.to_host());
    Loader some = images.loader(Split::test);
    return trainer.evaluate(some).accuracy;
  };
  Diagnosis d;
  measure_restores(trainer, before, accuracy, d);
  REQUIRE(looked_at.size() == 1 + modules.size() + kModuleNames.size());
  CHECK(looked_at[0] == after);
  for (std::size_t m = 0; m < modules.size(); ++m)
    for (std::size_t i = 0; i < after.size(); ++i) {
      const auto at = std::int64_t(i);
      const bool own = at >= modules[m].offset() && at < modules[m].offset() + modules[m].size();
      if (looked_at[1 + m][i] != (own ? before[i] : after[i])) FAIL(m << " " << i);
    }
  CHECK(trainer.arena().master.to_host() == after);
  measure_restores(trainer, after, accuracy, d);
  for (const char* name : kModuleNames) {
    for (const double drop : d.blocks.at(std::string("restore.") + name + ".drop")) CHECK(drop == 0.0);
    CHECK(d.model.at(std::string("restore.") + name + ".drop")[0] == 0.0);
  }
  CHECK_THROWS_AS(measure_restores(trainer, std::vector<double>(3), accuracy, d), Error);
}

TEST_CASE(
    "sharpness: Adam's preconditioner is the root of its unbiased second moment, and absent where there is none") {
  const OneThread one;
  const Images images;
  Trainer trainer(tiny("adamw:beta2=0.9:eps=1e-3"));
  const MethodSpec spec = parse_method("adamw:beta2=0.9:eps=1e-3");
  CHECK(adam_preconditioner(trainer, spec).empty());  // no update yet
  Loader loader = images.loader();
  trainer.step(*loader.next(), 1.0);
  // After one update v_hat = g^2, of the clipped gradient.
  const std::vector<double> d = adam_preconditioner(trainer, spec), g = trainer.arena().grad.to_host();
  REQUIRE(d.size() == g.size());
  double squares = 0.0;
  for (const double x : g) squares += x * x;
  const double clip = std::min(1.0, 1.0 / std::sqrt(squares));
  for (const Param* p : trainer.params())
    for (std::int64_t i = p->offset; i < p->offset + p->size(); ++i)
      CHECK(d[std::size_t(i)] == doctest::Approx(clip * std::abs(g[std::size_t(i)]) + 1e-3).epsilon(1e-3));
  Trainer other(tiny("sgd"));
  CHECK(adam_preconditioner(other, parse_method("sgd")).empty());
}

TEST_CASE("probe: what it says about weights, gradients and updates is what the arenas hold") {
  const Images images;
  Trainer trainer(tiny("sgd"));
  Loader own = images.loader(Split::test), fixed = images.loader(Split::test);
  Probe probe(trainer, {.fixed_images = fixed.samples(), .map_images = 3, .window = 2});
  const std::vector<double> first = trainer.arena().master.to_host();
  probe.task_begins();
  std::vector<double> before;
  Loader loader = images.loader();
  for (std::int64_t step = 0; step < 4; ++step) {
    before = trainer.arena().master.to_host();
    probe.before_update(step, 4);
    trainer.step(*loader.next(), 1.0);
    probe.after_update(step, 4);
  }
  const std::vector<double> now = trainer.arena().master.to_host(), gradient = trainer.arena().grad.to_host();
  Diagnosis d = probe.measure(own, fixed);
  for (const ModuleView& m : block_modules(trainer.params())) {
    INFO(m.block << " " << m.name());
    const auto length = [&](const std::vector<double>& a, const std::vector<double>* b = nullptr) {
      double sum = 0.0;
      for (std::int64_t i = m.offset(); i < m.offset() + m.size(); ++i) {
        const double x = a[std::size_t(i)] - (b ? (*b)[std::size_t(i)] : 0.0);
        sum += x * x;
      }
      return std::sqrt(sum);
    };
    const auto said = [&](const std::string& what) { return d.blocks.at(what)[std::size_t(m.block)]; };
    const std::string weight = "weight." + m.name(), grad = "gradient." + m.name();
    // Snapshots are fp32: 2^-24 of the values, and differences of them are as coarse.
    CHECK(said(weight + ".norm") == doctest::Approx(length(now)).epsilon(1e-6));
    CHECK(said(weight + ".drift") == doctest::Approx(length(now, &first) / length(first)).epsilon(1e-4));
    CHECK(said(weight + ".from_start") == doctest::Approx(length(now, &first) / length(first)).epsilon(1e-4));
    CHECK(said(weight + ".update_ratio") == doctest::Approx(length(now, &before) / length(before)).epsilon(1e-4));
    CHECK(said(grad + ".norm") == doctest::Approx(length(gradient)).epsilon(1e-5));
    CHECK(said(grad + ".norm") > 0.0);
    CHECK(said(weight + ".effective_rank") > 1.0);
    CHECK(said(weight + ".effective_rank") <= 16.0);
  }
  CHECK(d.blocks.at("units.active")[0] > 0.5);  // a young network's hidden values lie around 0, where GELU' is 0.5
  CHECK_FALSE(d.blocks.contains("attention.drift_task"));  // there is nothing to compare with yet
  Loader own_again = images.loader(Split::test), fixed_again = images.loader(Split::test);
  d = probe.measure(own_again, fixed_again);
  for (const double drift : d.blocks.at("attention.drift_task")) CHECK(drift < 1e-9);  // fp32 copies of the same maps
  for (const double same : d.blocks.at("tokens.cka_task")) CHECK(same == doctest::Approx(1.0).epsilon(1e-5));
}

TEST_CASE("probe: a block whose hidden units are all far below zero has no active unit") {
  const Images images;
  Trainer trainer(tiny());
  const Param& bias = param(trainer, "blocks.1.mlp.fc1.bias");
  bias.master.copy_from(
      Tensor::from(std::vector<double>(std::size_t(bias.size()), -30.0), bias.shape, bias.master.dtype(), kCpu));
  trainer.restored();
  Loader own = images.loader(Split::test), fixed = images.loader(Split::test);
  Probe probe(trainer, {.gradients = false, .fixed_images = fixed.samples()});
  const Diagnosis d = probe.measure(own, fixed);
  CHECK(d.blocks.at("units.active")[0] > 0.5);
  CHECK(d.blocks.at("units.active")[1] == 0.0);
  CHECK(d.blocks.at("units.dead")[1] == 1.0);
}

TEST_CASE("contribution: a unit's or head's own weights scale it, and one that adds nothing has none") {
  const OneThread one;
  const Images images;
  Trainer trainer(tiny("adamw", kReference));
  const Tensor& master = trainer.arena().master;
  const std::vector<double> start = master.to_host();
  const auto measured = [&](const std::vector<double>& w) {
    master.copy_from(Tensor::from(w, master.shape(), master.dtype(), kCpu));
    trainer.arena().refresh_work();
    Loader some = images.loader(Split::test);
    return measure_contribution(trainer, some);
  };
  const Contribution plain = measured(start);
  const Param& fc2 = param(trainer, "blocks.1.mlp.fc2.weight");
  const Param& proj = param(trainer, "blocks.1.attn.proj.weight");
  const Param& qkv = param(trainer, "blocks.1.attn.qkv.weight");
  const std::int64_t dim = 16, hidden = fc2.shape[1], width = dim / 2;
  REQUIRE(plain.units[1].size() == std::size_t(hidden));
  REQUIRE(plain.heads[1].size() == 2);
  std::vector<double> w = start;
  for (std::int64_t k = 0; k < dim; ++k) {
    w[std::size_t(fc2.offset + k * hidden + 5)] *= 2, w[std::size_t(fc2.offset + k * hidden + 6)] = 0;
    for (std::int64_t c = 0; c < width; ++c) w[std::size_t(proj.offset + k * dim + c)] *= 4;  // head 0
  }
  Contribution changed = measured(w);
  for (std::size_t i = 0; i < std::size_t(hidden); ++i) {
    if (i == 6) CHECK(changed.units[1][i] == 0.0);
    CHECK(changed.units[0][i] == plain.units[0][i]);  // the block before
  }
  CHECK(changed.heads[1][0] == 4 * plain.heads[1][0]);
  CHECK(changed.heads[1][1] == plain.heads[1][1]);
  // With the attention branch as it was, a unit doubles exactly.
  w = start;
  for (std::int64_t k = 0; k < dim; ++k) w[std::size_t(fc2.offset + k * hidden + 5)] *= 2;
  changed = measured(w);
  for (std::size_t i = 0; i < std::size_t(hidden); ++i)
    CHECK(changed.units[1][i] == (i == 5 ? 2 : 1) * plain.units[1][i]);
  // A head whose values are all zero brings nothing, whatever it looks at.
  w = start;
  for (std::int64_t r = 0; r < width; ++r)
    for (std::int64_t c = 0; c < dim; ++c) w[std::size_t(qkv.offset + (2 * dim + width + r) * dim + c)] = 0;
  CHECK(measured(w).heads[1][1] == 0.0);
}

TEST_CASE("fragility: the least useful units and heads go first, whole, and noise is drawn five times") {
  const OneThread one;
  const Images images;
  Trainer trainer(tiny("adamw"));
  for (int epoch = 0; epoch < 2; ++epoch) train_one_epoch(trainer, images);
  const std::vector<double> start = trainer.arena().master.to_host();
  Loader own = images.loader(Split::test), again = images.loader(Split::test);
  const Contribution useful = measure_contribution(trainer, own);
  std::vector<std::vector<double>> looked_at;
  Diagnosis d;
  measure_fragility(
      trainer, again,
      [&] {
        looked_at.push_back(trainer.arena().master.to_host());
        return 0.5;
      },
      0.25, d);
  CHECK(trainer.arena().master.to_host() == start);
  for (const char* kind : {"noise", "pruning", "global_pruning", "units", "heads", "quantisation"})
    CHECK(d.model.at(std::string("robustness.") + kind)[0] == doctest::Approx(1.0));  // the stub's accuracy never falls
  CHECK(d.model.contains("robustness.units.last_block"));
  CHECK_FALSE(d.model.contains("robustness.units.v"));
  // Whole network: itself, noise 6 x 5, pruning 9, one threshold 9, units 9, heads 1 of 2.
  const std::size_t noise = 1, global = noise + 30 + 9, units = global + 9, heads = units + 9;
  REQUIRE(looked_at.size() > heads);
  std::set<std::vector<double>> draws(looked_at.begin() + noise, looked_at.begin() + noise + 5);
  CHECK(draws.size() == 5);
  std::int64_t zeros = 0, all = 0;
  for (const ModuleView& m : block_modules(trainer.params())) {
    all += m.size();
    for (std::int64_t i = 0; i < m.size(); ++i) zeros += looked_at[global + 4][std::size_t(m.offset() + i)] == 0.0;
  }
  CHECK(zeros == std::llround(0.5 * double(all)));
  const auto check_columns = [&](const std::vector<double>& harmed, const std::string& name, const auto& by_block,
                                 std::int64_t gone) {
    for (const ModuleView& m : block_modules(trainer.params())) {
      const std::vector<double>& utility = by_block[std::size_t(m.block)];
      std::vector<double> sorted = utility;
      std::sort(sorted.begin(), sorted.end());
      const std::int64_t group = m.name() == name ? m.cols / std::int64_t(utility.size()) : 1;
      for (std::int64_t i = 0; i < m.size(); ++i) {
        const bool goes = m.name() == name && utility[std::size_t(i % m.cols / group)] < sorted[std::size_t(gone)];
        if (harmed[std::size_t(m.offset() + i)] != (goes ? 0.0 : start[std::size_t(m.offset() + i)]))
          FAIL(name << ", block " << m.block << ", " << m.name() << ", entry " << i);
      }
    }
  };
  check_columns(looked_at[units + 2], "fc2", useful.units, std::llround(0.3 * 64));
  check_columns(looked_at[heads], "out", useful.heads, 1);
}

TEST_CASE("counterfactual: a module held fast while a task is learned is as before, and all others learn") {
  const OneThread one;
  const Images images;
  Trainer trainer(tiny("adamw")), alone(tiny("adamw"));
  for (Trainer* t : {&trainer, &alone}) train_one_epoch(*t, images);
  const std::vector<double> before = trainer.arena().master.to_host();
  train_one_epoch(trainer, images);
  std::vector<std::vector<double>> learned;
  std::vector<std::string> said;
  Diagnosis d;
  const auto learn = [&](const auto& begun, const auto& after_update) {
    trainer.begin_task(1, "keep", false);
    begun();
    Loader loader = images.loader();
    while (const Batch* batch = loader.next()) trainer.step(*batch, 1.0), after_update();
  };
  measure_frozen(
      trainer, before, learn,
      [&] {
        learned.push_back(trainer.arena().master.to_host());
        Loader some = images.loader(Split::test);
        return trainer.evaluate(some).accuracy;
      },
      [&](const std::string& what) { said.push_back(what); }, d);
  REQUIRE(learned.size() == 1 + 6 + 2);
  CHECK(said.size() == learned.size());
  CHECK(said[3] == "v held");
  // Nothing held: the same as a task that begins with cleared moments.
  alone.begin_task(1, "keep", false);
  train_one_epoch(alone, images);
  CHECK(learned[0] == alone.arena().master.to_host());
  for (std::size_t i = 1; i < learned.size(); ++i)
    for (const ModuleView& m : block_modules(trainer.params())) {
      const bool held = i <= 6 ? m.module == int(i) - 1 : m.block == int(i) - 7;
      const auto at = std::size_t(m.offset()), end = at + std::size_t(m.size());
      CHECK(std::equal(learned[i].begin() + at, learned[i].begin() + end, before.begin() + at) == held);
    }
  CHECK(d.blocks.at("frozen.block.drop").size() == 2);
  CHECK(d.model.contains("frozen.fc2.drop"));
  CHECK_THROWS_AS(measure_frozen(
                      trainer, std::vector<double>(3), learn, [] { return 0.0; }, [](const std::string&) {}, d),
                  Error);
}
