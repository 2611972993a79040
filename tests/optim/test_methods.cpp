// tests/optim/test_methods.cpp - what every registered method owes (methods.md 0.5).
#include <cmath>
#include <limits>

#include "tests/optim/dense.h"

using namespace eg;
using namespace eg::test;

namespace {

std::vector<Piece> small_model() {
  return {
      {.start = Values(37, 0.25), .name = "blocks.0.attn.proj.weight"},
      {.start = Values(36, -0.5),
       .name = "blocks.1.attn.qkv.weight",
       .module = Module::qkv,
       .block = 1,
       .shape = {6, 6}},
      {.start = Values(5, 0.75),
       .name = "blocks.1.norm1.weight",
       .module = Module::norm1,
       .block = 1,
       .decays = false,
       .shape = {5}},
      {.start = Values(31, 1.0), .name = "head.weight", .module = Module::head, .block = -1},
      {.start = Values(24, 0.5),
       .name = "blocks.0.mlp.fc1.weight",
       .module = Module::fc1,
       .shape = {8, 3},
       .init = {Init::Rule::normal, 0.5},
       .link = {4, 5, 6, 7}},
      {.start = Values(8, 0.1), .name = "blocks.0.mlp.fc1.bias", .module = Module::fc1, .decays = false, .shape = {8}},
      {.start = Values(16, -0.3), .name = "blocks.0.mlp.fc2.weight", .module = Module::fc2, .shape = {2, 8}},
      {.start = Values(2, 0.2), .name = "blocks.0.mlp.fc2.bias", .module = Module::fc2, .decays = false, .shape = {2}}};
}

std::vector<Values> gradients(int step) {
  const Key k = key(9, "test", "gradients", std::uint32_t(step));
  std::vector<Values> all;
  std::uint64_t at = 0;
  for (const Piece& p : small_model()) {
    all.emplace_back(p.start.size());
    for (double& x : all.back()) x = double(float(k.normal(at++)));
  }
  return all;
}

/// Every method as it is by default, and the variants of ARROW that keep other state.
std::vector<std::string> variants() {
  std::vector<std::string> all;
  for (const MethodInfo& m : method_list()) all.push_back(m.name);
  for (const char* more : {"arrow:window=2:ring=bf16",
                           "arrow:window=3:momentum=0.9:momentum-form=gradient",
                           "arrow:grouping=tensor:window=3",
                           "arrow:grouping=global:window=3:mlp:biases",
                           "arrow:paper:window=3",
                           "sgd:nesterov",
                           "arrow:base=sgd:window=3:momentum=0.5:boundary=clear-keep-warm:warmup=beta-ramp",
                           "arrow:paper:window=3:boundary=keep:alpha-schedule=exponential:alpha-final=0.1",
                           "sgd+l2init:strength=0.1+nap:every=3",
                           "arrow:window=3+shrink-perturb:variant=b+weight-clipping:kappa=1",
                           "sgd+shrink-perturb:variant=d:noise=0.1",
                           "shrink-perturb:variant=f:shrink=0.01",
                           "shrink-perturb:variant=c",
                           "sgd+shrink-perturb:variant=e+l2:strength=0.01",
                           "cbp:rate=0.1:maturity=2+nap",
                           "sgd+trac",
                           "arrow:window=3+trac:mode=literal",
                           "muon:nesterov=false:iterations=2+trac",
                           "sgd+parseval:strength=0.1+trac",
                           "muon:momentum=0+cbp:rate=0.2:maturity=1",
                           "sgd+cbp:rate=0.2:maturity=1",
                           "arrow:window=3:mlp+redo:every=4:tau=0.5",
                           "upgd:protect=false:beta=0.9",
                           "swr:every=3:threshold=0.5:clear-moments",
                           "sgd+swr:every=2:proportion=0.3:utility=magnitude:value=mean+nap",
                           "sgd+snr:tau-max=3",
                           "arrow:window=3+snr:tau-max=2:tasks=1",
                           "upgd+snr:tau-max=4",
                           "cbp:rate=0.1:maturity=2:compensate"})
    all.push_back(more);
  all.insert(all.end(), {"sgd+sam:adaptive:rho=0.5", "arrow:window=3+l2init+sam:head=false",
                         "sgd+plastic:rho=0.5+adaptive-replay:low=1"});
  return all;
}

}  // namespace

TEST_CASE("methods: the same gradients give the same bits") {
  for (const Device d : kBoth)
    for (const std::string& method : variants()) {
      CAPTURE(method);
      Rig a(d, method, small_model(), -1.0, -1.0, 1.0), b(d, method, small_model(), -1.0, -1.0, 1.0);
      for (int i = 0; i < 12; ++i) a.step(gradients(i)), b.step(gradients(i));
      CHECK(a.bits() == b.bits());
      // TRAC does not move along gradients without a common direction.
      if (method.find("trac") == std::string::npos) CHECK(a.weights(0) != Values(37, 0.25));
    }
}

TEST_CASE("methods: stopping, saving and going on equals never having stopped, bit for bit") {
  for (const Device d : kBoth)
    for (const std::string& method : variants()) {
      CAPTURE(method);
      Rig whole(d, method, small_model(), -1.0, -1.0, 1.0), first(d, method, small_model(), -1.0, -1.0, 1.0);
      for (int i = 0; i < 14; ++i) {
        if (i == 7) {
          StepContext ctx = whole.context();
          whole.optimizer->task_boundary(ctx, true);
        }
        whole.step(gradients(i));
      }
      for (int i = 0; i < 5; ++i) first.step(gradients(i));
      Rig second(d, method, small_model(), -1.0, -1.0, 1.0);
      second.restore(first.bits());
      for (int i = 5; i < 14; ++i) {
        if (i == 7) {
          StepContext ctx = second.context();
          second.optimizer->task_boundary(ctx, true);
        }
        second.step(gradients(i));
      }
      CHECK(second.bits() == whole.bits());
    }
}

TEST_CASE("methods: a gradient that is not finite changes nothing but the counter of skipped steps") {
  for (const Device d : kBoth)
    for (const std::string& method : variants()) {
      CAPTURE(method);
      Rig hit(d, method, small_model()), clean(d, method, small_model());
      for (int i = 0; i < 10; ++i) {
        hit.step(gradients(i)), clean.step(gradients(i));
        if (i % 4 != 2) continue;
        auto bad = gradients(50 + i);
        bad[3][7] = i == 2 ? std::numeric_limits<double>::quiet_NaN() : -std::numeric_limits<double>::infinity();
        const Values before = hit.weights(3);
        hit.step(bad);
        CHECK(hit.record.finite == 0);
        CHECK(hit.weights(3) == before);
        hit.record.step = clean.record.step;  // random numbers belong to the step's number, not to the update's
      }
      CHECK(hit.record.skipped == 2);
      for (std::size_t p = 0; p < 4; ++p) CHECK(hit.weights(p) == clean.weights(p));
    }
}

TEST_CASE("methods: clearing the state at a boundary makes the next steps those of a new optimizer") {
  for (const Device d : kBoth)
    for (const std::string& method : variants()) {
      if (method.find("boundary=") != std::string::npos) continue;  // the window has its own policy, which keeps it
      CAPTURE(method);
      Rig old(d, method, small_model());
      // What a method keeps of the first weights is no moment, and stays; so do singular vectors of the present ones.
      if (!old.state_names("anchor").empty() || !old.state_names("lengths").empty()) continue;
      if (!old.state_names("vectors").empty()) continue;
      for (int i = 0; i < 6; ++i) old.step(gradients(i));
      StepContext ctx = old.context();
      old.optimizer->task_boundary(ctx, false);
      auto pieces = small_model();
      for (std::size_t p = 0; p < pieces.size(); ++p) pieces[p].start = old.weights(p);
      Rig fresh(d, method, pieces);
      fresh.record.step = old.record.step;  // random numbers belong to the step
      for (int i = 6; i < 18; ++i) old.step(gradients(i)), fresh.step(gradients(i));
      for (std::size_t p = 0; p < 4; ++p) CHECK(old.weights(p) == fresh.weights(p));
    }
}

TEST_CASE("methods: every one explains itself") {
  CHECK(method_list().size() >= 4);
  for (const MethodInfo& m : method_list()) {
    CAPTURE(m.name);
    CHECK(m.summary.size() > 20);
    CHECK(m.paper.size() > 10);
    CHECK((m.options.find('=') != std::string::npos || m.name == "fresh" || m.name == "crelu"));
    CHECK(m.default_lr > 0.0);
    CHECK(m.default_weight_decay >= 0.0);
    Rig rig(kCpu, m.name, small_model());
    CHECK(contains(rig.optimizer->describe(), "lr"));
    CHECK(rig.optimizer->name() == (m.intervention ? m.base + "+" + m.name : m.name));
    std::size_t bytes = 0;
    rig.optimizer->visit_state([&](const std::string&, Tensor& t) { bytes += t.bytes(); });
    CHECK(rig.optimizer->state_bytes() == bytes);
  }
}

TEST_CASE("methods: the working copy is the rounded weight after every step, a skipped one too") {
  for (const std::string& method : variants()) {
    CAPTURE(method);
    Rig rig(kCpu, method, small_model(), -1.0, -1.0, 1.0, DType::bf16);
    for (int i = 0; i < 10; ++i) {
      auto g = gradients(i);
      if (i == 3) g[0][0] = std::numeric_limits<double>::infinity();
      rig.step(g);
      for (const Param* p : rig.list) {
        Values expected = p->master.to_host();
        for (double& x : expected) x = double(bf16(x));
        CHECK(p->value.to_host() == expected);
      }
    }
  }
}
