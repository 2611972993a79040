// tests/optim/test_plasticity.cpp - interventions: golden values and invariants of methods.md B.5 to B.8, B.10.
#include <cmath>

#include "tests/optim/rig.h"

namespace eg::test {
namespace {

double length(const Values& w) {
  double sum = 0.0;
  for (const double x : w) sum += x * x;
  return std::sqrt(sum);
}
Piece matrix(Shape shape, Values start, Module module = Module::proj) {
  Piece p{std::move(start)};
  p.shape = std::move(shape), p.module = module;
  return p;
}
Values zeros(std::size_t n) { return Values(n, 0.0); }

void next_task(Rig& rig, std::int64_t task) {
  StepContext ctx = rig.context();
  ctx.task = task;
  rig.optimizer->task_boundary(ctx, true);
}

}  // namespace

TEST_CASE("l2 and l2init: the penalty's gradient is the slope of strength/2 |w - w0|^2, and nothing at the start") {
  for (const Device d : kBoth) {
    Rig l2(d, "sgd:momentum=0+l2:strength=0.5", {{{2.0, -4.0}}}, 0.1);
    CHECK(l2.taken(zeros(2))[0] == doctest::Approx(0.1));
    CHECK(l2.weights()[1] == doctest::Approx(-3.8));
    Rig init(d, "sgd:momentum=0+l2init:strength=0.5", {{{2.0, -4.0}}}, 0.1);
    const Values before = init.weights();
    init.step(zeros(2));
    CHECK(init.weights() == before);
    init.step(Values{10.0, 0.0});  // w0 = 2 becomes 1
    CHECK(init.taken(zeros(2))[0] == doctest::Approx(0.1 * 0.5 * -1.0));
  }
}

TEST_CASE("l2: the penalty enters before ARROW observes, so its window holds what is applied") {
  Rig a(kReference, "arrow:window=3:base=sgd:warmup=none+l2:strength=0.5", {{{2.0, -4.0}}}, 0.1);
  Rig b(kReference, "arrow:window=3:base=sgd:warmup=none", {{{2.0, -4.0}}}, 0.1);
  a.step(Values{1.0, 1.0});
  b.step(Values{1.0 + 0.5 * 2.0, 1.0 - 0.5 * 4.0});
  CHECK(a.weights() == b.weights());
}

TEST_CASE("weight clipping: golden values, and a bound beyond every weight changes no bit") {
  for (const Device d : kBoth) {
    Rig rig(d, "sgd:momentum=0+weight-clipping:kappa=1", {matrix({1, 4}, {0.7, -0.2, -0.9, 0.1})}, 0.1);
    rig.step(zeros(4));
    check_close(rig.weights(), {0.5, -0.2, -0.5, 0.1}, d);
    Rig plain(d, "sgd", {matrix({1, 4}, {0.7, -0.2, -0.9, 0.1})}, 0.1);
    Rig wide(d, "sgd+weight-clipping:kappa=1e9", {matrix({1, 4}, {0.7, -0.2, -0.9, 0.1})}, 0.1);
    for (int i = 0; i < 5; ++i) plain.step({0.3, -1.0, 2.0, 0.5}), wide.step({0.3, -1.0, 2.0, 0.5});
    CHECK(plain.weights() == wide.weights());
  }
}

TEST_CASE("nap: golden values; every matrix keeps its first length, q, k and v each its own; zeros stay") {
  for (const Device d : kBoth) {
    Rig golden(d, "sgd:momentum=0+nap", {matrix({1, 2}, {3.0, 4.0})}, 1.0);
    golden.step(Values{-3.0, -4.0});  // to [6, 8], and back
    check_close(golden.weights(), {3.0, 4.0}, d, 8.0);
    Piece nothing = matrix({1, 2}, {0.0, 0.0}, Module::fc1);
    nothing.name = "blocks.0.mlp.fc1.weight";
    Rig rig(d, "sgd:momentum=0+nap", {matrix({3, 2}, {1.0, 0.0, 0.0, 2.0, 3.0, 0.0}, Module::qkv), nothing}, 0.1);
    for (int i = 0; i < 4; ++i) rig.step({{0.3, -1.0, 2.0, 0.5, 0.1, 0.7}, {0.0, 0.0}});
    const Values w = rig.weights();
    for (std::size_t part = 0; part < 3; ++part)
      CHECK(length({w[2 * part], w[2 * part + 1]}) == doctest::Approx(double(part + 1)).epsilon(1e-6));
    CHECK(rig.weights(1) == zeros(2));
  }
}

TEST_CASE("shrink and perturb: every variant is the formula of its source") {
  for (const Device d : kBoth) {
    const auto run = [&](const std::string& options, const Values& start) {
      return Rig(d, "sgd:momentum=0+shrink-perturb:" + options, {{start}}, 0.1);
    };
    Rig a = run("variant=a:shrink=0.5:noise=0", {2.0});
    CHECK(a.taken(zeros(1))[0] == doctest::Approx(0.1 * 0.5 * 2.0));
    Rig c = run("variant=c:shrink=1", {2.0});
    c.step(Values{5.0});
    next_task(c, 1);
    CHECK(c.weights() == Values{2.0});  // exactly the first weights
    Rig e = run("variant=e:shrink=0.25:noise=0", {2.0});
    e.step(zeros(1));
    CHECK(e.weights() == Values{2.0});
    next_task(e, 1);
    CHECK(e.weights()[0] == doctest::Approx(1.5));
    Rig f = run("variant=f:shrink=0.1", {2.0});
    f.step(Values{10.0});  // to 1, then 0.9 of it and 0.1 of 2
    CHECK(f.weights()[0] == doctest::Approx(1.1));
  }
}

TEST_CASE("shrink and perturb: noise has the variance that was asked for, and each step its own") {
  for (const Device d : kBoth) {
    const std::size_t n = 20000;
    Rig a(d, "sgd:momentum=0+shrink-perturb:variant=a:shrink=0:noise=0.1", {{zeros(n)}}, 0.5);
    a.step(zeros(n));
    const Values first = a.weights();
    // The sample deviation of n normals is off by s / sqrt(2 n); five of these.
    CHECK(std::abs(length(first) / std::sqrt(double(n)) - 0.1) < 5.0 * 0.1 / std::sqrt(2.0 * double(n)));
    a.step(zeros(n));
    const Values both = a.weights();
    double product = 0.0;
    for (std::size_t i = 0; i < n; ++i) product += first[i] * (both[i] - first[i]);
    CHECK(std::abs(product) / double(n) < 5.0 * 0.01 / std::sqrt(double(n)));
    Rig dd(d, "sgd:momentum=0+shrink-perturb:variant=d:shrink=0:noise=0.1", {{zeros(n)}}, 0.5);
    dd.step(zeros(n));
    CHECK(length(dd.weights()) == doctest::Approx(0.5 * length(first)).epsilon(1e-5));
  }
}

TEST_CASE("interventions of strength zero change no bit") {
  for (const Device d : kBoth)
    for (const std::string none :
         {"l2:strength=0", "l2init:strength=0", "shrink-perturb:shrink=0:noise=0", "shrink-perturb:variant=c:shrink=0",
          "spectral:strength=0", "parseval:strength=0", "dash:lambda=1", "shrink-perturb:variant=b:shrink=0:noise=0"}) {
      CAPTURE(none);
      Rig with(d, "adamw+" + none, {{{0.7, -0.2, -0.9}}}), without(d, "adamw", {{{0.7, -0.2, -0.9}}});
      for (int i = 0; i < 6; ++i) {
        with.step({0.3, -1.0, 2.0}), without.step({0.3, -1.0, 2.0});
        next_task(with, i + 1), next_task(without, i + 1);
      }
      CHECK(with.weights() == without.weights());
    }
}

TEST_CASE("head-reset and fresh: what is named is drawn anew, the rest keeps its bits") {
  for (const Device d : kBoth) {
    const auto model = [] {
      Piece head = matrix({2, 3}, {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, Module::head);
      head.name = "head.weight", head.block = -1, head.init = {Init::Rule::normal, 0.5};
      Piece inner = matrix({1, 3}, {7.0, 8.0, 9.0}, Module::fc2);
      inner.init = {Init::Rule::normal, 0.5};
      return std::vector<Piece>{inner, head};
    };
    Rig reset(d, "sgd+head-reset", model(), 0.1);
    next_task(reset, 0);
    CHECK(reset.weights(1) == Values{1.0, 2.0, 3.0, 4.0, 5.0, 6.0});  // the first task begins with what there is
    next_task(reset, 1);
    CHECK(reset.weights(0) == Values{7.0, 8.0, 9.0});
    const Values first = reset.weights(1);
    CHECK(length(first) < 0.5 * 6.0);
    next_task(reset, 2);
    CHECK(reset.weights(1) != first);
    Rig identity(d, "sgd+head-reset:head=false:blocks=all:out-zero", model(), 0.1);
    next_task(identity, 1);
    CHECK(identity.weights(0) == zeros(3));
    CHECK(identity.weights(1) == Values{1.0, 2.0, 3.0, 4.0, 5.0, 6.0});

    Rig fresh(d, "adamw+fresh", model(), 0.1), new_one(d, "adamw", model(), 0.1);
    for (int i = 0; i < 3; ++i) fresh.step({{1.0, -1.0, 0.5}, zeros(6)});
    next_task(fresh, 1);
    for (std::size_t p = 0; p < 2; ++p)
      new_one.list[p]->master.copy_from(
          Tensor::from(fresh.weights(p), new_one.list[p]->shape, new_one.list[p]->master.dtype(), d));
    new_one.record.step = fresh.record.step;
    for (int i = 0; i < 3; ++i) fresh.step({{1.0, -1.0, 0.5}, zeros(6)}), new_one.step({{1.0, -1.0, 0.5}, zeros(6)});
    CHECK(fresh.weights(0) == new_one.weights(0));
  }
}

TEST_CASE("methods: a base with interventions is read as it is written, and mistakes are named") {
  const MethodSpec s = parse_method("arrow:blocks=0,3:window=4+l2init:strength=1e-2+nap");
  CHECK(s.name == "arrow");
  CHECK(s.options.at("blocks") == "0+3");
  REQUIRE(s.with.size() == 2);
  CHECK(s.with[0].name == "l2init");
  CHECK(s.with[0].options.at("strength") == "1e-2");
  CHECK(parse_method("nap").name == "adamw");
  CHECK(parse_method("nap+sgd").name == "sgd");
  CHECK(contains(usage_error([] { parse_method("sgd+adamw"); }), "both update rules"));
  CHECK(contains(usage_error([] { parse_method("sgd+napp"); }), "sgd+napp"));
  const auto made = [](const std::string& method) { return usage_error([&] { Rig(kCpu, method, {{{1.0}}}); }); };
  CHECK(contains(made("nap+nap"), "twice"));
  CHECK(contains(made("l2:strength=-1"), "strength"));
  CHECK(contains(made("l2:sigma=1"), "it has"));
  CHECK(contains(made("shrink-perturb:variant=g"), "a, b, c"));
  CHECK(contains(made("shrink-perturb:variant=c:noise=1"), "noise"));
  CHECK(contains(made("head-reset:head=false:blocks=7"), "blocks 0 to 0"));
  CHECK(contains(made("head-reset:head=false"), "nothing is reset"));
}

}  // namespace eg::test
