// tests/optim/test_model_and_loop.cpp - methods that change the model or the loop: CReLU, adaptive replay, PLASTIC, L2P
// (methods.md B.9, B.13, B.14).
#include <cmath>

#include "tests/optim/rig.h"

namespace eg::test {
namespace {

Piece head(Values start) {
  Piece p{std::move(start)};
  p.name = "head.weight", p.module = Module::head, p.block = -1, p.init = {Init::Rule::normal, 0.5};
  return p;
}

/// Batches of one weight that adaptive replay hears of; `share` is what it measures.
struct Stream {
  Rig rig;
  double share = 0.5;
  int measured = 0;
  explicit Stream(const std::string& method) : rig(kCpu, method, {{{1.0}}}) {}
  std::int64_t batch() {
    StepContext ctx = rig.context();
    ctx.active_share = [this] { return ++measured, share; };
    const std::int64_t updates = rig.optimizer->updates_from_batch(ctx);
    for (std::int64_t i = 0; i < updates; ++i) rig.step(Values{0.1});
    return updates;
  }
  void next_task(std::int64_t task) {
    StepContext ctx = rig.context();
    ctx.task = task;
    rig.optimizer->task_boundary(ctx, true);
  }
};

}  // namespace

TEST_CASE("crelu: asks for another network and changes nothing else; methods of GELU units refuse it") {
  CHECK(model_change(parse_method("sgd+crelu")).crelu);
  CHECK_FALSE(model_change(parse_method("sgd+l2")).crelu);
  Rig with(kCpu, "adamw+crelu", {{{0.7, -0.2}}}), without(kCpu, "adamw", {{{0.7, -0.2}}});
  for (int i = 0; i < 3; ++i) with.step(Values{0.3, -1.0}), without.step(Values{0.3, -1.0});
  CHECK(with.bits() == without.bits());
  CHECK(contains(usage_error([] { Rig(kCpu, "crelu:width=1", {{{1.0}}}); }), "width"));
  for (const std::string method : {"cbp", "redo"}) {
    const std::vector<Piece> pieces{{.start = Values(6, 0.5),
                                     .name = "blocks.0.mlp.fc1.weight",
                                     .module = Module::fc1,
                                     .shape = {2, 3},
                                     .link = {0, 1, 2}},
                                    {.start = Values(2, 0.5), .name = "blocks.0.mlp.fc1.bias", .shape = {2}},
                                    {.start = Values(12, 0.5), .name = "blocks.0.mlp.fc2.weight", .shape = {3, 4}}};
    CHECK(contains(usage_error([&] { Rig(kCpu, method + "+crelu", pieces); }), "CReLU"));
  }
}

TEST_CASE("adaptive-replay: few updates until the share of active units settles, then many, once in a task") {
  Stream s("sgd+adaptive-replay:low=1:high=3:every=2:delta=0.01");
  CHECK(s.rig.optimizer->probe_images() == 64);
  CHECK(s.batch() == 1);
  CHECK(s.batch() == 1);
  CHECK(s.measured == 0);
  s.share = 0.5;
  CHECK(s.batch() == 1);  // the first measurement has nothing to be compared with
  CHECK(s.batch() == 1);
  s.share = 0.4;
  CHECK(s.batch() == 1);  // changed by 0.1
  CHECK(s.batch() == 1);
  s.share = 0.405;
  CHECK(s.batch() == 3);  // changed by 0.005
  s.share = 0.9;
  for (int i = 0; i < 5; ++i) CHECK(s.batch() == 3);  // never back
  CHECK(s.measured == 3);
  CHECK(s.rig.optimizer->scalars().at("adaptive-replay.updates") == 6 + 6 * 3);
  CHECK(s.rig.optimizer->scalars().at("adaptive-replay.batches") == 12);
  CHECK(s.rig.record.step == 6 + 6 * 3);
  s.next_task(1);
  for (int i = 0; i < 4; ++i) CHECK(s.batch() == 1);  // low again, and the first measurement of this task at 0.9
  CHECK(s.batch() == 3);
}

TEST_CASE("adaptive-replay: a ratio below one leaves batches out; equal ratios are the base, and need no probe") {
  Stream half("sgd+adaptive-replay:low=0.5:high=1.5:every=2:delta=1");
  std::vector<std::int64_t> updates;
  for (int i = 0; i < 12; ++i) updates.push_back(half.batch());
  // Measured before the 5th batch and, two updates later, before the 9th, where the change of 0 is within delta.
  CHECK(updates == std::vector<std::int64_t>{0, 1, 0, 1, 0, 1, 0, 1, 1, 2, 1, 2});
  Stream same("sgd+adaptive-replay:low=1:high=1"), base("sgd");
  CHECK(same.rig.optimizer->probe_images() == 0);
  for (int i = 0; i < 120; ++i) {
    CHECK(same.batch() == 1);
    base.batch();
  }
  CHECK(same.measured == 0);
  CHECK(same.rig.weights() == base.rig.weights());
}

TEST_CASE("adaptive-replay: goes on after a checkpoint as if it had never stopped; mistakes are named") {
  const std::string method = "sgd+adaptive-replay:low=0.5:high=2:every=3:delta=0.01";
  Stream whole(method), first(method), second(method);
  for (int i = 0; i < 30; ++i) whole.batch();
  for (int i = 0; i < 11; ++i) first.batch();
  second.rig.restore(first.rig.bits());
  for (int i = 11; i < 30; ++i) second.batch();
  CHECK(second.rig.bits() == whole.rig.bits());
  const auto made = [](const std::string& text) { return usage_error([&] { Rig(kCpu, text, {{{1.0}}}); }); };
  CHECK(contains(made("adaptive-replay:low=0"), "above 0"));
  CHECK(contains(made("adaptive-replay:delta=2"), "delta"));
  CHECK(contains(made("adaptive-replay:k=2"), "it has"));
}

TEST_CASE("plastic: is its parts, and each can be left out") {
  for (const Device d : kBoth) {
    const std::vector<Piece> pieces{{{1.0, -2.0}}, head({3.0, 4.0, 5.0})};
    const auto run = [&](const std::string& method) {
      Rig rig(d, method, pieces, 0.1);
      rig.slope = [](const std::vector<Values>& x) { return x; };
      for (std::int64_t task = 0; task < 3; ++task) {
        StepContext ctx = rig.context();
        ctx.task = task;
        rig.optimizer->task_boundary(ctx, true);
        for (int i = 0; i < 3; ++i) rig.step({rig.weights(0), rig.weights(1)});
      }
      return rig.bits();
    };
    CHECK(run("sgd+plastic") == run("sgd+sam:rho=0.1:head=false+head-reset"));
    CHECK(run("sgd+plastic:rho=0.7:head-reset=false") == run("sgd+sam:rho=0.7:head=false"));
    CHECK(run("sgd+plastic:sam=false") == run("sgd+head-reset"));
    CHECK(run("sgd+plastic:sam=false:head-reset=false") == run("sgd"));
    CHECK(run("sgd+plastic") != run("sgd"));
  }
  CHECK(model_change(parse_method("plastic")).crelu);
  CHECK_FALSE(model_change(parse_method("plastic:crelu=false")).crelu);
  CHECK(contains(usage_error([] { Rig(kCpu, "plastic+sam", {{{1.0}}, head({1.0})}); }), "both"));
  CHECK(contains(usage_error([] { Rig(kCpu, "plastic:rho=-1", {{{1.0}}, head({1.0})}); }), "plastic"));
}

TEST_CASE("l2p: asks for a pool, and brings Adam along with a rate of its own, which can be given in three places") {
  const PromptPool p = model_change(parse_method("l2p:pool=7:length=3:select=2:lambda=0.5:batchwise=0")).prompts;
  CHECK((p.pool == 7 && p.length == 3 && p.select == 2));
  CHECK((p.pull == 0.5 && !p.batchwise && !p.batchwise_test));
  const PromptPool published = model_change(parse_method("sgd+l2p")).prompts;
  CHECK((published.pool == 10 && published.length == 10 && published.select == 4));
  CHECK((published.pull == 1.0 && published.batchwise && !published.batchwise_test));
  CHECK(model_change(parse_method("sgd")).prompts.pool == 0);

  const auto said = [](const std::string& method, double lr = -1.0) {
    return Rig(kCpu, method, {{{1.0}}}, lr, -1.0).optimizer->describe();
  };
  CHECK(contains(said("l2p"), "Adam lr 0.003, betas 0.9 0.999, eps 1e-08, weight decay 0;"));
  CHECK(contains(said("l2p:lr=0.5"), "Adam lr 0.5,"));
  CHECK(contains(said("adam:lr=0.2+l2p"), "Adam lr 0.2,"));
  CHECK(contains(said("l2p", 0.7), "Adam lr 0.7,"));
  CHECK(contains(said("l2p+l2"), "Adam lr 0.003,"));
  CHECK(contains(said("adam+l2"), "Adam lr 0.001,"));
  CHECK(contains(said("adamw+l2p"), "AdamW lr 0.001,"));
  CHECK(to_text(parse_method("l2p:lr=0.5:pool=6")) == "adam+l2p:lr=0.5:pool=6");

  const auto refused = [](const std::string& text) { return usage_error([&] { Rig(kCpu, text, {{{1.0}}}); }); };
  CHECK(contains(refused("adam:lr=0.2+l2p:lr=0.1"), "both give lr"));
  CHECK(contains(refused("l2p:pool=3:select=4"), "pool=3"));
  CHECK(contains(refused("l2p:prompts=3"), "it has"));
  CHECK(contains(refused("l2p:length=0"), "length"));
}

TEST_CASE("l2p: Adam's moments end with a task, as published, unless they are to stay") {
  for (const bool stays : {false, true}) {
    Rig rig(kCpu, stays ? "l2p:clear-optimizer=false" : "l2p", {{{1.0, 2.0}}}, 0.1);
    for (int i = 0; i < 3; ++i) rig.step(Values{0.5, -1.0});
    StepContext ctx = rig.context();
    ctx.task = 1;
    rig.optimizer->task_boundary(ctx, true);
    bool any = false;
    rig.optimizer->visit_moments([&](Tensor& t) {
      for (const double x : t.to_host()) any |= x != 0.0;
    });
    CHECK(any == stays);
    CHECK(rig.record.slot[0].t == (stays ? 3 : 0));
  }
}

TEST_CASE("methods of the blocks' matrices refuse a network in which all of them are frozen, and name themselves") {
  std::vector<Piece> pieces{
      {.start = Values(6, 0.5), .name = "blocks.0.mlp.fc1.weight", .module = Module::fc1, .shape = {2, 3}},
      head({1.0, 2.0})};
  pieces[0].frozen = true;
  for (const std::string method : {"muon", "sgd+nap", "sgd+fire", "sgd+parseval"})
    CHECK(
        contains(usage_error([&] { Rig(kCpu, method, pieces); }), method.substr(method.find('+') + 1) + ": works on"));
  pieces[0].frozen = false;
  for (const std::string method : {"muon", "sgd+nap", "sgd+fire", "sgd+parseval"}) Rig(kCpu, method, pieces);
}

}  // namespace eg::test
