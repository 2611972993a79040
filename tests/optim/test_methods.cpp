// tests/optim/test_methods.cpp - what every registered method owes (methods.md 0.5), and how methods are written.
#include <cmath>
#include <limits>

#include "engine/rng.h"
#include "layers/vit.h"
#include "optim/arrow_options.h"
#include "optim/ema.h"
#include "optim/options_reader.h"
#include "optim/schedule.h"
#include "optim/segments.h"
#include "tests/optim/rig.h"

using namespace eg;
using namespace eg::test;

namespace {

std::vector<Piece> small_model() {
  return {{.start = Values(37, 0.25), .name = "blocks.0.attn.proj.weight"},
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
          {.start = Values(31, 1.0), .name = "head.weight", .module = Module::head, .block = -1}};
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
  for (const char* more : {"arrow:window=2:ring=bf16", "arrow:window=3:momentum=0.9:momentum-form=gradient",
                           "arrow:grouping=tensor:window=3", "arrow:grouping=global:window=3:mlp:biases",
                           "arrow:paper:window=3", "sgd:nesterov"})
    all.push_back(more);
  return all;
}

std::string usage_error(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK(e.kind == Kind::usage);
    return e.what();
  }
  FAIL("no error");
  return {};
}

bool contains(const std::string& text, const std::string& part) {
  CAPTURE(text);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("methods: the same gradients give the same bits") {
  for (const Device d : kBoth)
    for (const std::string& method : variants()) {
      CAPTURE(method);
      Rig a(d, method, small_model(), -1.0, -1.0, 1.0), b(d, method, small_model(), -1.0, -1.0, 1.0);
      for (int i = 0; i < 12; ++i) a.step(gradients(i)), b.step(gradients(i));
      CHECK(a.bits() == b.bits());
      CHECK(a.weights(0) != Values(37, 0.25));
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
      }
      CHECK(hit.record.skipped == 2);
      for (std::size_t p = 0; p < 4; ++p) CHECK(hit.weights(p) == clean.weights(p));
    }
}

TEST_CASE("methods: clearing the state at a boundary makes the next steps those of a new optimizer") {
  for (const Device d : kBoth)
    for (const std::string& method : variants()) {
      CAPTURE(method);
      Rig old(d, method, small_model());
      for (int i = 0; i < 6; ++i) old.step(gradients(i));
      StepContext ctx = old.context();
      old.optimizer->task_boundary(ctx, false);
      auto pieces = small_model();
      for (std::size_t p = 0; p < pieces.size(); ++p) pieces[p].start = old.weights(p);
      Rig fresh(d, method, pieces);
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
    CHECK(m.default_lr > 0.0);
    Rig rig(kCpu, m.name, small_model());
    CHECK(contains(rig.optimizer->describe(), "lr"));
    CHECK(rig.optimizer->name() == m.name);
    std::size_t bytes = 0;
    rig.optimizer->visit_state([&](const std::string&, Tensor& t) { bytes += t.bytes(); });
    CHECK(rig.optimizer->state_bytes() == bytes);
  }
}

TEST_CASE("method text: options stand after colons or commas, and mistakes are named") {
  const MethodSpec a = parse_method("arrow:blocks=last-4:window=8"), b = parse_method("arrow:blocks=last:4,window=8");
  CHECK(a.name == "arrow");
  CHECK(a.options == b.options);
  CHECK(parse_method("arrow:blocks=0,3").options.at("blocks") == "0+3");
  CHECK(parse_method("sgd:nesterov").options.at("nesterov").empty());
  CHECK(contains(usage_error([] { parse_method("adamv"); }), "known: adamw"));
  CHECK(contains(usage_error([] { parse_method("adamw:"); }), "name:key=value"));
  CHECK(contains(usage_error([] { parse_method("adamw:=3"); }), "=3"));
  CHECK(contains(usage_error([] { parse_method("lr=3"); }), "name first"));
  CHECK(contains(usage_error([] { parse_method("adamw:eps=1:eps=2"); }), "twice"));
  for (const auto& [text, word] :
       std::vector<std::pair<std::string, std::string>>{{"adamw:windwo=3", "it has beta1"},
                                                        {"adamw:beta1=1.5", "from 0 to"},
                                                        {"adamw:eps=nan", "eps=nan"},
                                                        {"adamw:eps=", "eps="},
                                                        {"arrow:window=0", "from 1 to 64"},
                                                        {"arrow:window=8.5", "whole number"},
                                                        {"arrow:grouping=blocks", "tensor, module, block, global"},
                                                        {"arrow:paper=maybe", "true or false"},
                                                        {"arrow:blocks=last-0", "last-N"},
                                                        {"arrow:blocks=7", "2 blocks"},
                                                        {"arrow:tensors=qx", "q, k, v and o"},
                                                        {"arrow:graft=adamw:base=sgd", "base=adamw"}})
    CHECK(contains(usage_error([&] { Rig(kCpu, text, small_model()); }), word));
}

TEST_CASE("arrow: takes q, k, v and output of the last blocks of a real model, and says so") {
  VitConfig c = vit_config("vit-ti", 32, 4, 32, 6, 2);
  c.classes = 10;
  Vit vit = make_vit(c);
  std::vector<Param*> params = parameters(vit);
  ParamArena arena;
  arena.build(params, kCpu, DType::f32);
  const auto names = [&](const std::string& method) {
    const auto optimizer = make_optimizer(parse_method(method), {params, &arena, c.depth}, -1.0, -1.0);
    std::vector<std::string> rings;
    optimizer->visit_state([&](const std::string& name, Tensor& t) {
      const auto at = name.find(".ring.");
      if (at == std::string::npos) return;
      rings.push_back(name.substr(at + 6));
      CHECK(t.dim(1) % (32 * 32) == 0);
    });
    return rings;
  };
  CHECK(names("arrow").size() == 16);  // 4 blocks, 4 matrices
  CHECK(names("arrow:tensors=v:blocks=5") == std::vector<std::string>{"blocks.5.attn.qkv.v.weight"});
  CHECK(names("arrow:tensors=qo:blocks=0+2") ==
        std::vector<std::string>{"blocks.0.attn.qkv.q.weight", "blocks.0.attn.proj.weight",
                                 "blocks.2.attn.qkv.q.weight", "blocks.2.attn.proj.weight"});
  CHECK(names("arrow:mlp:blocks=first-1").size() == 6);
  CHECK(parse_blocks("all", 3) == std::vector<int>{0, 1, 2});
  CHECK(parse_blocks("last-4", 3) == std::vector<int>{0, 1, 2});
  CHECK(parse_blocks("4+1-2", 6) == std::vector<int>{1, 2, 4});
  const auto optimizer = make_optimizer(parse_method("arrow"), {params, &arena, c.depth}, -1.0, -1.0);
  CHECK(contains(optimizer->describe(), "qkvo of blocks 2,3,4,5 (16 tensors, 16384 parameters, 4 windows)"));
}

TEST_CASE("segments: neighbours with the same decay join, frozen parameters are in none") {
  Rig rig(kCpu, "sgd",
          {{.start = Values(5, 0.0), .name = "a"},
           {.start = Values(17, 0.0), .name = "b"},
           {.start = Values(3, 0.0), .name = "c", .decays = false},
           {.start = Values(4, 0.0), .name = "d", .frozen = true},
           {.start = Values(6, 0.0), .name = "e"}});
  const std::vector<Segment> s = segments_of({rig.list, &rig.arena, 1}, 0.5);
  std::vector<int> covered(std::size_t(rig.arena.size), -1);
  for (std::size_t i = 0; i < s.size(); ++i)
    for (std::int64_t k = s[i].begin; k < s[i].end; ++k) {
      CHECK(covered[std::size_t(k)] == -1);
      covered[std::size_t(k)] = int(i);
    }
  CHECK(s.size() == 3);
  for (const Param* p : rig.list)
    for (std::int64_t k = p->offset; k < p->offset + p->size(); ++k) {
      CHECK((covered[std::size_t(k)] >= 0) == !p->frozen);
      if (!p->frozen) CHECK(s[std::size_t(covered[std::size_t(k)])].weight_decay == (p->decays ? 0.5f : 0.0f));
    }
}

TEST_CASE("schedules: exact factors") {
  CHECK(schedule_factor(Schedule::constant, 7, 10) == 1.0);
  CHECK(schedule_factor(Schedule::linear, 0, 10) == 1.0);
  CHECK(schedule_factor(Schedule::linear, 5, 10) == 0.5);
  CHECK(schedule_factor(Schedule::cosine, 0, 10) == 1.0);
  CHECK(schedule_factor(Schedule::cosine, 5, 10) == doctest::Approx(0.5).epsilon(1e-15));
  CHECK(schedule_factor(Schedule::cosine, 10, 10) == doctest::Approx(0.0));
  CHECK(schedule_factor(Schedule::cosine, 99, 10) == doctest::Approx(0.0));
  for (const Schedule s : {Schedule::constant, Schedule::linear, Schedule::cosine}) {
    CHECK(schedule_factor(s, 0, 10, 4) == 0.25);
    CHECK(schedule_factor(s, 3, 10, 4) == 1.0);
    CHECK(schedule_factor(s, 4, 10, 4) == 1.0);
  }
  CHECK(schedule_factor(Schedule::linear, 7, 10, 4) == 0.5);
  CHECK(contains(usage_error([] { parse_schedule("cosin"); }), "constant, linear or cosine"));
}

TEST_CASE("ema: follows the weights, and lends itself without leaving a trace") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0", {{.start = {1.0}}}, 1.0);
    Ema ema(rig.arena, 0.75);
    rig.step(Values{1.0});
    ema.update(rig.context());
    CHECK(ema.average().to_host()[0] == 0.75);
    rig.step(Values{std::numeric_limits<double>::quiet_NaN()});
    ema.update(rig.context());  // the step was skipped, and so is its average
    CHECK(ema.average().to_host()[0] == 0.75);
    {
      const auto applied = ema.apply();
      CHECK(rig.weights()[0] == 0.75);
    }
    CHECK(rig.weights()[0] == 0.0);
    ema.rebase();
    CHECK(ema.average().to_host()[0] == 0.0);
  }
  Rig rig(kCpu, "sgd", {{.start = {1.0}}});
  CHECK(contains(usage_error([&] { Ema(rig.arena, 1.0); }), "between 0 and 1"));
}
