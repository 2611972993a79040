// tests/apps/test_trainer.cpp - one step, one evaluation, one task boundary, one look inside: what each may change.
#include "apps/trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "apps/diagnosis/counterfactual.h"
#include "apps/diagnosis/diagnosis.h"
#include "apps/diagnosis/sharpness.h"
#include "engine/parallel.h"
#include "tests/tolerance.h"

using namespace eg;

namespace {

constexpr int kClasses = 4;

TrainerConfig tiny(const std::string& method = "adamw", Device device = kCpu) {
  TrainerConfig c;
  c.vit = vit_config("vit-ti", 8, 4, 16, 2, 2);
  c.vit.classes = kClasses;
  c.vit.precision = device == kReference ? DType::f64 : DType::f32;
  c.device = device;
  c.method = parse_method(method);
  c.mean = {0.5, 0.5, 0.5}, c.stddev = {0.25, 0.25, 0.25};
  return c;
}

/// 32 images of 4 classes in batches of 8, in the same order for everyone who asks.
struct Images {
  std::shared_ptr<const Dataset> data = make_procedural({.classes = kClasses, .train_per_class = 8});
  Task task = whole_dataset(*data, kClasses);
  Loader loader(Split split = Split::train) const {
    LoaderConfig c;
    c.format = {3, 8};
    c.batch = 8, c.epochs = 1, c.workers = 0, c.shuffle = split == Split::train;
    return Loader(data, split == Split::train ? task.train : task.test, task.transform, c);
  }
};

void train_one_epoch(Trainer& trainer, const Images& images, const Tensor& mask = {}) {
  Loader loader = images.loader();
  while (const Batch* batch = loader.next()) trainer.step(*batch, 1.0, mask);
}

/// The bytes of everything that a checkpoint holds.
std::vector<std::string> bytes_of(Trainer& trainer) {
  std::vector<std::string> all;
  for (const NamedTensor& t : trainer.state()) {
    const Tensor host = t.tensor.to(kCpu);
    all.push_back(t.name + ' ' + std::string(static_cast<const char*>(host.data()), host.bytes()));
  }
  return all;
}

/// One thread: steps of microseconds on a busy machine would otherwise wait for each other.
struct OneThread {
  int before = num_threads();
  OneThread() { set_num_threads(1); }
  ~OneThread() { set_num_threads(before); }
};

const Param& param(const Trainer& trainer, const std::string& name) {
  for (const Param* p : trainer.params())
    if (p->name == name) return *p;
  FAIL(name);
  return *trainer.params()[0];
}

}  // namespace

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
      measure_fragility(looked_at, accuracy, 0.25, d);
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

TEST_CASE("trainer: classes outside the mask keep their rows of the head, bit for bit") {
  const Images images;
  Trainer trainer(tiny("sgd:weight-decay=0"));
  const std::vector<double> before = param(trainer, "head.weight").master.to_host();
  const Tensor mask = Tensor::from(std::vector<std::uint8_t>{1, 0, 1, 1}, {kClasses}, kCpu);
  Loader loader = images.loader();
  while (const Batch* batch = loader.next()) {
    Batch allowed;  // no image of the forbidden class: its loss would be infinite
    allowed.channels = batch->channels, allowed.size = batch->size;
    const std::size_t pixels = std::size_t(batch->channels) * std::size_t(batch->size) * std::size_t(batch->size);
    allowed.images.resize(pixels * std::size_t(batch->count));
    for (std::int64_t i = 0; i < batch->count; ++i) {
      if (batch->labels[std::size_t(i)] == 1) continue;
      std::memcpy(allowed.images.data() + pixels * allowed.labels.size(),
                  batch->images.data() + pixels * std::size_t(i), pixels);
      allowed.labels.push_back(batch->labels[std::size_t(i)]);
    }
    allowed.count = allowed.global_count = std::int64_t(allowed.labels.size());
    if (allowed.count > 0) trainer.step(allowed, 1.0, mask);
  }
  const std::vector<double> after = param(trainer, "head.weight").master.to_host();
  for (std::size_t i = 0; i < after.size(); ++i)
    if (i / 16 == 1)
      CHECK(after[i] == before[i]);
    else
      CHECK(after[i] != before[i]);
}

TEST_CASE("trainer: accumulated passes give the whole batch's step up to rounding") {
  const Images images;
  TrainerConfig config = tiny("sgd:momentum=0", kReference);
  Trainer whole(config);
  config.accumulate = 3;  // does not divide 8
  Trainer parts(config);
  train_one_epoch(whole, images);
  train_one_epoch(parts, images);
  const std::vector<double> a = whole.arena().master.to_host(), b = parts.arena().master.to_host();
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) difference += (a[i] - b[i]) * (a[i] - b[i]), size += a[i] * a[i];
  CHECK(difference > 0.0);  // the sums were taken in another order
  CHECK(std::sqrt(difference / size) < test::kSameInDouble);
}

TEST_CASE("trainer: sam steps from the weights with the gradient uphill, under the same masks; rho = 0 is the base") {
  const Images images;
  const auto config_of = [](const std::string& method) {
    TrainerConfig c = tiny(method, kReference);
    c.vit.drop_path = 0.3, c.clip_norm = 0.0, c.lr = 0.1, c.weight_decay = 0.0;
    return c;
  };
  const auto step = [&](Trainer& t) {
    Loader loader = images.loader();
    return t.step(*loader.next(), 1.0).loss;
  };
  Trainer sam(config_of("sgd:momentum=0+sam:rho=0.5")), here(config_of("sgd:momentum=0")),
      there(config_of("sgd:momentum=0"));
  const std::vector<double> start = sam.arena().master.to_host();
  for (Trainer* t : {&sam, &here})
    for (Param* p : t->params())
      if (p->module == Module::fc1 && p->shape.rank() == 2)
        p->sums.absolute = Tensor::zeros({p->shape.rows()}, DType::f64, kReference);
  const double loss = step(sam);
  CHECK(loss == step(here));  // what is reported is the loss of the weights as they are
  for (std::size_t i = 0; i < sam.params().size(); ++i)
    if (sam.params()[i]->sums)  // hidden units are counted once
      CHECK(sam.params()[i]->sums.absolute.to_host() == here.params()[i]->sums.absolute.to_host());

  std::vector<double> uphill = start;
  const std::vector<double> g1 = here.arena().grad.to_host();
  double norm = 0.0;
  for (const double g : g1) norm += g * g;
  for (std::size_t i = 0; i < start.size(); ++i) uphill[i] += 0.5 * g1[i] / std::sqrt(norm);
  there.arena().master.copy_from(Tensor::from(uphill, there.arena().master.shape(), DType::f64, kReference));
  CHECK(step(there) > loss);
  const std::vector<double> g2 = there.arena().grad.to_host(), got = sam.arena().grad.to_host();
  const std::vector<double> after = sam.arena().master.to_host();
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < g2.size(); ++i) {
    difference += (got[i] - g2[i]) * (got[i] - g2[i]), size += g2[i] * g2[i];
    CHECK(after[i] == start[i] - 0.1 * got[i]);
  }
  CHECK(std::sqrt(difference / size) < test::kSameInDouble);

  Trainer none(config_of("sgd:momentum=0+sam:rho=0"));
  step(none);
  CHECK(none.arena().master.to_host() == here.arena().master.to_host());
}

TEST_CASE("trainer: crelu trains the network that it asks for, and cbp refuses that one by name") {
  const OneThread one;
  const Images images;
  Trainer trainer(tiny("adamw+crelu"));
  CHECK(param(trainer, "blocks.0.mlp.fc1.weight").shape == Shape{42, 16});
  CHECK(param(trainer, "blocks.0.mlp.fc2.weight").shape == Shape{16, 84});
  CHECK(model_of(tiny("adamw+crelu")).activation == Activation::crelu);
  train_one_epoch(trainer, images);
  Loader own = images.loader(Split::test), fixed = images.loader(Split::test);
  Probe probe(trainer, {.gradients = false, .fixed_images = fixed.samples()});
  const Diagnosis d = probe.measure(own, fixed);
  for (const double share : d.blocks.at("units.active")) CHECK(share == 0.5);
  std::string why;
  try {
    Trainer refused(tiny("cbp+crelu"));
  } catch (const Error& e) { why = e.what(); }
  CHECK(why.find("CReLU") != std::string::npos);
}

TEST_CASE("trainer: adaptive replay takes more updates from a batch once units have settled, and resumes bit for bit") {
  const OneThread one;
  const Images images;
  // delta = 1: settled at the second measurement, before the third batch.
  const TrainerConfig config = tiny("sgd+adaptive-replay:low=1:high=2:every=1:delta=1:probe=5");
  Trainer whole(config);
  train_one_epoch(whole, images);
  CHECK(whole.updates() == 1 + 1 + 2 + 2);
  const double share = whole.optimizer().scalars().at("adaptive-replay.active_share");
  CHECK(share > 0.0);
  CHECK(share < 1.0);
  whole.begin_task(1, "fresh", true);
  train_one_epoch(whole, images);
  CHECK(whole.updates() == 12);

  Trainer first(config), second(config);
  const auto some = [&](Trainer& t, std::int64_t from, std::int64_t to) {
    Loader loader = images.loader();
    loader.seek(0, from);
    for (std::int64_t b = from; b < to; ++b) t.step(*loader.next(), 1.0);
  };
  some(first, 0, 2);
  const std::vector<NamedTensor> from = first.state(), into = second.state();
  REQUIRE(from.size() == into.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    Tensor to = into[i].tensor;
    to.copy_from(from[i].tensor);
  }
  second.restored();
  for (Trainer* t : {&first, &second}) some(*t, 2, 4);
  CHECK(bytes_of(first) == bytes_of(second));

  Trainer half(tiny("sgd+adaptive-replay:low=0.5:high=1:every=100"));
  Loader loader = images.loader();
  CHECK(half.step(*loader.next(), 1.0).count == 0);
  CHECK(half.step(*loader.next(), 1.0).count == 8);
  CHECK(half.updates() == 1);
}

TEST_CASE("trainer: every head policy does what it says at a boundary, and a restored bank of heads goes on") {
  const Images images;
  const auto head = [](const Trainer& t) { return param(t, "head.weight").master.to_host(); };
  Trainer trainer(tiny());
  const auto start = head(trainer);
  train_one_epoch(trainer, images);
  const auto trained = head(trainer);
  trainer.begin_task(1, "keep", true);
  CHECK(head(trainer) == trained);
  trainer.begin_task(1, "fresh", true);
  const auto fresh = head(trainer);
  CHECK(fresh != trained);
  CHECK(fresh != start);
  trainer.begin_task(1, "zero", true);
  CHECK(head(trainer) == std::vector<double>(start.size(), 0.0));

  Trainer first(tiny());
  train_one_epoch(first, images);
  first.begin_task(1, "multi", true);
  CHECK(head(first) != trained);
  bool kept = false;  // the first task's head is part of every later checkpoint
  for (const NamedTensor& t : first.state())
    if (t.name == "head.0.weight") kept = t.tensor.to_host() == trained;
  CHECK(kept);
  train_one_epoch(first, images);
  // What a checkpoint does, in memory: every state tensor into another trainer with room for one head.
  Trainer second(tiny());
  second.expect_heads(1);
  const std::vector<NamedTensor> from = first.state(), into = second.state();
  REQUIRE(from.size() == into.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    CHECK(from[i].name == into[i].name);
    Tensor to = into[i].tensor;
    to.copy_from(from[i].tensor);
  }
  second.restored();
  CHECK(bytes_of(second) == bytes_of(first));
  for (Trainer* t : {&first, &second}) t->begin_task(2, "multi", true), train_one_epoch(*t, images);
  CHECK(bytes_of(second) == bytes_of(first));
}

TEST_CASE("trainer: a loss that is not finite stops before anything changed, in training and in a test") {
  const Images images;
  for (const bool training : {true, false}) {
    Trainer trainer(tiny());
    train_one_epoch(trainer, images);
    const Param& weight = param(trainer, "blocks.1.mlp.fc2.weight");
    std::vector<double> values = weight.master.to_host();
    values[3] = std::numeric_limits<double>::quiet_NaN();
    weight.master.copy_from(Tensor::from(values, weight.shape, weight.master.dtype(), kCpu));
    trainer.restored();
    const std::vector<std::string> before = bytes_of(trainer);
    Loader loader = images.loader();
    std::string why;
    try {
      if (training)
        trainer.step(*loader.next(), 1.0);
      else
        trainer.evaluate(loader);
    } catch (const Diverged& e) { why = e.what(); }
    INFO(why);
    CHECK(why.find(training ? "the loss is " : "the test loss is ") == 0);
    for (const char* part : {"step 4", "seed 1", "mlp", "--lr"}) CHECK(why.find(part) != std::string::npos);
    // The record tells the kernels where the step would have begun; weights and moments are as they were.
    const std::vector<std::string> after = bytes_of(trainer);
    for (std::size_t i = 0; i < after.size(); ++i)
      if (after[i].rfind("step_record ", 0) != 0) CHECK(after[i] == before[i]);
  }
}

TEST_CASE("trainer: a gradient that is not finite skips the update and is counted; twenty in a row stop the run") {
  const Images images;
  Trainer trainer(tiny("sgd"));
  // Logits of +-1e38 times O(1) are finite, and so is their loss; the gradient that passes back through the head is not
  // once the layer norm's 1/std multiplies it.
  const Param& weight = param(trainer, "head.weight");
  std::vector<double> values = weight.master.to_host();
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = (i / 16 + i) % 2 ? 1e37 : -1e37;
  weight.master.copy_from(Tensor::from(values, weight.shape, weight.master.dtype(), kCpu));
  trainer.restored();
  const std::vector<double> before = trainer.arena().master.to_host();
  std::string why;
  int steps = 0;
  try {
    for (; steps < 100; ++steps) {
      Loader loader = images.loader();
      const StepResult r = trainer.step(*loader.next(), 1.0);
      CHECK_FALSE(r.applied);
      CHECK(std::isfinite(r.loss));
      CHECK(trainer.skipped() == steps + 1);
    }
  } catch (const Diverged& e) { why = e.what(); }
  CHECK(steps == 19);
  CHECK(why.find("20 updates in a row were skipped") == 0);
  CHECK(trainer.arena().master.to_host() == before);
}

TEST_CASE(
    "trainer: a method that asks for the new task's gradients sees every batch once, and nothing else has moved") {
  const OneThread one;
  const Images images;
  // E = -g of the last batch, and a row keeps cos(E, W) of itself: what stands in the gradient arena says what came out.
  Trainer trainer(tiny("sgd+dash:alpha=1:lambda=0.01")), counted(tiny("sgd+dash+cbp")), expected(tiny("sgd+cbp"));
  for (Trainer* t : {&trainer, &counted, &expected}) train_one_epoch(*t, images);
  const Param& w = param(trainer, "blocks.0.mlp.fc1.weight");
  const std::vector<double> before = w.master.to_host();
  std::int64_t asked = 0;
  Loader loader = images.loader();
  trainer.begin_task(1, "keep", true, [&] { return ++asked, loader.next(); });
  CHECK(asked == 5);  // four batches, and the end
  const std::vector<double> after = w.master.to_host(), g = w.grad.to_host();
  const auto columns = std::size_t(w.shape.cols());
  for (std::size_t row = 0; row < std::size_t(w.shape.rows()); ++row) {
    double gw = 0.0, gg = 0.0, ww = 0.0;
    for (std::size_t i = row * columns; i < (row + 1) * columns; ++i)
      gw -= g[i] * before[i], gg += g[i] * g[i], ww += before[i] * before[i];
    const double kept = std::clamp(gw / std::sqrt(gg * ww), 0.01, 1.0);
    for (std::size_t i = row * columns; i < (row + 1) * columns; ++i)
      CHECK(std::abs(after[i] - kept * before[i]) <= 4.0 * unit_roundoff(DType::f32) * std::abs(before[i]));
  }
  // The sums that CBP collects of hidden units are those of training alone.
  Loader again = images.loader();
  counted.begin_task(1, "keep", true, [&] { return again.next(); });
  for (std::size_t i = 0; i < counted.params().size(); ++i)
    if (const Tensor& sums = counted.params()[i]->sums.absolute; sums)
      CHECK(sums.to_host() == expected.params()[i]->sums.absolute.to_host());
  CHECK(counted.steps() == expected.steps());
}
