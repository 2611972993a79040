// tests/optim/test_frozen.cpp - what is frozen keeps its bits, whatever the method does.
#include "tests/optim/rig.h"

using namespace eg;
using namespace eg::test;

namespace {

/// One parameter of every kind that a method looks for.
std::vector<Piece> model() {
  const auto values = [](std::size_t n, std::uint32_t which) {
    const Key k = key(5, "test", "frozen", which);
    Values v(n);
    for (std::size_t i = 0; i < n; ++i) v[i] = double(float(k.normal(i)));
    return v;
  };
  return {{.start = values(36, 0), .name = "blocks.0.attn.proj.weight", .shape = {6, 6}},
          {.start = values(108, 1),
           .name = "blocks.1.attn.qkv.weight",
           .module = Module::qkv,
           .block = 1,
           .shape = {18, 6},
           .init = {Init::Rule::normal, 0.5}},
          {.start = values(18, 8),
           .name = "blocks.1.attn.qkv.bias",
           .module = Module::qkv,
           .block = 1,
           .decays = false,
           .shape = {18},
           .role = Role::bias},
          {.start = values(6, 2),
           .name = "blocks.1.norm1.weight",
           .module = Module::norm1,
           .block = 1,
           .decays = false,
           .shape = {6},
           .role = Role::norm},
          {.start = values(24, 3),
           .name = "head.weight",
           .module = Module::head,
           .block = -1,
           .shape = {4, 6},
           .init = {Init::Rule::normal, 0.5},
           .role = Role::head},
          {.start = values(48, 4),
           .name = "blocks.0.mlp.fc1.weight",
           .module = Module::fc1,
           .shape = {8, 6},
           .init = {Init::Rule::normal, 0.5},
           .link = {5, 6, 7, 8}},
          {.start = values(8, 5),
           .name = "blocks.0.mlp.fc1.bias",
           .module = Module::fc1,
           .decays = false,
           .shape = {8},
           .role = Role::bias},
          {.start = values(48, 6),
           .name = "blocks.0.mlp.fc2.weight",
           .module = Module::fc2,
           .shape = {6, 8},
           .init = {Init::Rule::normal, 0.5}},
          {.start = values(6, 7),
           .name = "blocks.0.mlp.fc2.bias",
           .module = Module::fc2,
           .decays = false,
           .shape = {6},
           .role = Role::bias}};
}

std::vector<Values> gradients(int step) {
  const Key k = key(9, "test", "frozen gradients", std::uint32_t(step));
  std::vector<Values> all;
  std::uint64_t at = 0;
  for (const Piece& p : model()) {
    all.emplace_back(p.start.size());
    for (double& x : all.back()) x = double(float(k.normal(at++)));
  }
  return all;
}

/// Every method, at settings that make each of its parts act within a few steps.
std::vector<std::string> methods() {
  std::vector<std::string> all;
  for (const MethodInfo& m : method_list()) all.push_back(m.name);
  for (const char* more : {"arrow:window=2:mlp:biases:blocks=all",
                           "arrow:paper:window=2:blocks=all",
                           "muon:weight-decay=0.1",
                           "sgd:nesterov:weight-decay=0.1",
                           "l2:strength=0.1:norms:biases",
                           "l2init:strength=0.1:norms",
                           "shrink-perturb:variant=b:norms",
                           "shrink-perturb:variant=c:norms",
                           "shrink-perturb:variant=d:noise=0.1",
                           "shrink-perturb:variant=e:norms",
                           "shrink-perturb:variant=f:shrink=0.1",
                           "nap:every=1",
                           "weight-clipping:kappa=0.1",
                           "cbp:rate=0.5:maturity=1",
                           "cbp:rate=0.5:maturity=1:compensate",
                           "redo:every=2:tau=0.9",
                           "snr:tau-max=1",
                           "swr:every=1:proportion=0.5",
                           "fire:tensors=qkvom",
                           "dash:alpha=0.5:lambda=0.1",
                           "head-reset:blocks=all:out-zero",
                           "sgd+parseval:strength=0.1",
                           "sgd+trac",
                           "sgd+sam:adaptive:rho=0.5",
                           "upgd:protect=false"})
    all.push_back(more);
  return all;
}

void run(Rig& rig) {
  for (int i = 0; i < 8; ++i) {
    if (i == 3 || i == 6) {
      StepContext ctx = rig.context();
      ctx.task = i / 3;
      ctx.gradients_of_task = [](const std::function<void()>& each) { each(); };
      rig.optimizer->task_boundary(ctx, false);
    }
    rig.step(gradients(i));
  }
}

}  // namespace

TEST_CASE("frozen: no method touches a bit of any kind of parameter, and the others are trained") {
  int frozen_runs = 0;
  for (const DType type : {DType::f64, DType::bf16})
    for (const std::string& method : methods())
      for (std::size_t frozen = 0; frozen < model().size(); ++frozen) {
        std::vector<Piece> pieces = model();
        pieces[frozen].frozen = true;
        const std::string name = pieces[frozen].name;
        CAPTURE(method);
        CAPTURE(name);
        std::unique_ptr<Rig> rig;
        try {
          rig = std::make_unique<Rig>(kCpu, method, pieces, -1.0, -1.0, 1.0, type);
        } catch (const Error& e) {
          // Some have one parameter to work on, and say so when it is frozen.
          CHECK(e.kind == Kind::usage);
          continue;
        }
        const Values before = rig->weights(frozen), working = rig->list[frozen]->value.to_host();
        run(*rig);
        CHECK(rig->weights(frozen) == before);
        CHECK(rig->list[frozen]->value.to_host() == working);
        ++frozen_runs;
        if (method.find("trac") != std::string::npos) continue;  // it does not move along gradients without direction
        bool trained = false;
        for (std::size_t i = 0; i < pieces.size(); ++i) trained = trained || rig->weights(i) != pieces[i].start;
        CHECK(trained);
      }
  CHECK(frozen_runs > int(2 * method_list().size() * (model().size() - 2)));
}

TEST_CASE("fresh: what came from a file comes from it again, a head that its policy replaced does not") {
  std::vector<Piece> pieces = model();
  for (const bool head_changed : {false, true}) {
    Rig rig(kCpu, "sgd", pieces, 0.1);
    for (Param* p : rig.list) p->imported = true;
    rig.optimizer = make_optimizer(parse_method("sgd+fresh"), {rig.list, &rig.arena, rig.depth}, 0.1, 0.0);
    rig.step(gradients(0));
    CHECK(rig.weights(0) != pieces[0].start);
    StepContext ctx = rig.context();
    ctx.task = 1, ctx.head_changed = head_changed;
    rig.optimizer->task_boundary(ctx, true);
    for (std::size_t i = 0; i < pieces.size(); ++i)
      CHECK((rig.weights(i) == pieces[i].start) == !(head_changed && rig.list[i]->module == Module::head));
  }
}
