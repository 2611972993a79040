// tests/apps/test_trainer.cpp - one step, one evaluation, one task boundary: what each may change.
#include "apps/trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "apps/diagnosis/diagnosis.h"
#include "tests/apps/tiny_trainer.h"
#include "tests/tolerance.h"

using namespace eg;
using namespace eg::test;

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
  const std::vector<StateTensor> from = first.state(), into = second.state();
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
  const std::vector<StateTensor> from = first.state(), into = second.state();
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
