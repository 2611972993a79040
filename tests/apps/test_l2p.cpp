// tests/apps/test_l2p.cpp - learning to prompt as a whole: which weights a task may change, beside which methods, and after
// a checkpoint (methods.md B.13).
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <set>

#include "tests/apps/command.h"
#include "tests/apps/tiny_trainer.h"

using namespace eg;
using namespace eg::test;

namespace {

const std::string kSmall = "l2p:pool=5:length=2:select=2";

/// Two tasks of two classes each, 16 images in batches of 8; labels stand for all four classes.
struct TwoTasks {
  std::shared_ptr<const Dataset> data = make_procedural({.classes = kClasses, .train_per_class = 8});
  Task all = whole_dataset(*data, kClasses);

  void learn(Trainer& trainer, std::int64_t task) const {
    SampleSet some{Split::train, {}, {}};
    for (std::int64_t i = 0; i < all.train.size(); ++i) {
      if (all.train.labels[std::size_t(i)] / 2 != task) continue;
      some.indices.push_back(all.train.indices[std::size_t(i)]),
          some.labels.push_back(all.train.labels[std::size_t(i)]);
    }
    std::vector<std::int64_t> classes{2 * task, 2 * task + 1};
    const Tensor mask = class_mask(classes, kClasses, trainer.device());
    LoaderConfig c;
    c.format = {3, 8}, c.batch = 8, c.epochs = 2, c.workers = 0;
    Loader loader(data, some, all.transform, c), once(data, some, all.transform, c);
    trainer.begin_task(
        task, "keep", true, [&] { return once.next(); }, mask);
    for (int epoch = 0; epoch < 2; ++epoch)
      while (const Batch* batch = loader.next()) trainer.step(*batch, 1.0, mask);
  }
};

std::map<std::string, std::vector<double>> weights(const Trainer& trainer) {
  std::map<std::string, std::vector<double>> all;
  for (const Param* p : trainer.params()) all[p->name] = p->master.to_host();
  return all;
}
}  // namespace

TEST_CASE("l2p: two tasks change prompts, keys and the head's own rows, and no bit of the network") {
  const OneThread one;
  const TwoTasks stream;
  for (const std::string more :
       {"", ":batchwise=0", "+sam", "+trac", "+l2init+swr:every=2", "+plastic", "+weight-clipping"}) {
    CAPTURE(more);
    TrainerConfig config = tiny(kSmall + more);
    config.accumulate = more.empty() ? 1 : 2;
    Trainer trainer(config);
    const auto before = weights(trainer);
    stream.learn(trainer, 0);
    const auto between = weights(trainer);
    stream.learn(trainer, 1);
    const auto after = weights(trainer);
    std::set<std::string> moved;
    for (const auto& [name, values] : after)
      if (values != before.at(name)) moved.insert(name);
    for (const Param* p : trainer.params()) CHECK((!p->frozen || !moved.contains(p->name)));
    CHECK(moved.contains("prompt.keys"));
    CHECK(moved.contains("head.weight"));
    if (more != "+trac") CHECK(moved.contains("prompt.prompts"));  // TRAC needs more steps until it trusts a direction
    if (!more.empty()) continue;
    // Logits of the second task's classes were masked in the first: their rows are still zero.
    for (std::size_t i = 2 * 16; i < 4 * 16; ++i) CHECK(between.at("head.weight")[i] == 0.0);
    for (std::size_t i = 0; i < 2 * 16; ++i) CHECK(after.at("head.weight")[i] == between.at("head.weight")[i]);
  }
}

TEST_CASE("l2p: every method either works beside it and leaves the frozen network alone, or says why it cannot") {
  const OneThread one;
  const TwoTasks stream;
  const std::set<std::string> refusing{"arrow",    "norm-control", "muon", "nap", "fire",
                                       "parseval", "cbp",          "redo", "snr"};
  std::set<std::string> refused;
  for (const MethodInfo& m : method_list()) {
    if (m.name == "l2p") continue;
    CAPTURE(m.name);
    try {
      Trainer trainer(tiny(m.intervention ? kSmall + "+" + m.name : m.name + "+" + kSmall));
      const auto before = weights(trainer);
      for (std::int64_t task = 0; task < 2; ++task) stream.learn(trainer, task);
      const auto after = weights(trainer);
      for (const Param* p : trainer.params())
        if (p->frozen) CHECK(after.at(p->name) == before.at(p->name));
    } catch (const Error& e) {
      CHECK(e.kind == Kind::usage);
      CHECK(std::string(e.what()).find(m.name == "norm-control" ? "arrow" : m.name) != std::string::npos);
      refused.insert(m.name);
    }
  }
  CHECK(refused == refusing);
}

TEST_CASE("l2p: a restored run goes on bit for bit, and the reported loss is the cross-entropy alone") {
  const OneThread one;
  const TwoTasks stream;
  const TrainerConfig config = tiny(kSmall);
  Trainer whole(config), second(config);
  stream.learn(whole, 0);
  const std::vector<StateTensor> from = whole.state(), into = second.state();
  REQUIRE(from.size() == into.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    Tensor to = into[i].tensor;
    to.copy_from(from[i].tensor);
  }
  second.restored();
  for (Trainer* t : {&whole, &second}) stream.learn(*t, 1);
  CHECK(weights(whole) == weights(second));

  // With a head of zeros the cross-entropy over four classes is ln 4, whatever the cosines are.
  Trainer fresh(config);
  LoaderConfig c;
  c.format = {3, 8}, c.batch = 8, c.workers = 0;
  Loader loader(stream.data, stream.all.train, stream.all.transform, c);
  const std::vector<std::int64_t> classes{0, 1, 2, 3};
  const double loss = fresh.step(*loader.next(), 1.0, class_mask(classes, kClasses, kCpu)).loss;
  CHECK(std::abs(loss - std::log(4.0)) < 1e-6);  // a few roundings in fp32
}

TEST_CASE("l2p: on a network of random weights it says so") {
  CHECK(caution(tiny("l2p")).find("random") != std::string::npos);
  CHECK(caution(tiny("adamw")).empty());
  CHECK(model_of(tiny("l2p")).describe().find("of prompts") != std::string::npos);
}

TEST_CASE("l2p: stands on weights that --init brings, says nothing of random ones, and cannot be exported") {
  const TemporaryFolder folder;
  const std::string file = (folder / "vit.safetensors").string(), out = (folder / "run").string();
  const Ended imported = evergrad({"import", EVERGRAD_TEST_FILES "/cases/timm_registers.safetensors", "-o", file,
                                   "--heads", "2", "--drop", "images,labels,logits*,gradient/*"});
  INFO(imported.all());
  REQUIRE(imported.code == 0);
  const Ended e = evergrad({"continual",
                            "--init",
                            file,
                            "--methods",
                            "l2p:pool=4:length=2:select=2",
                            "--stream",
                            "procedural",
                            "--tasks",
                            "2",
                            "--epochs",
                            "1",
                            "--train-limit",
                            "24",
                            "--test-limit",
                            "12",
                            "--batch",
                            "12",
                            "--threads",
                            "1",
                            "--out",
                            out});
  INFO(e.all());
  CHECK(e.code == 0);
  CHECK_FALSE(contains(e.all(), "weights are random"));
  check_refused(evergrad({"export", out, "-o", (folder / "x.safetensors").string(), "--names", "timm"}), 2,
                {"prompts", "l2p"});
}
