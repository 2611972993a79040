// tests/optim/test_arrow_step.cpp - ARROW against a dense solve, and everything around the formula: warm-up, windows at
// task boundaries, grafting, momentum, clipping, faults (methods.md A.3.4 to A.3.7, timing and clipping).
#include <cmath>
#include <limits>

#include "tests/optim/dense.h"

using namespace eg;
using namespace eg::test;

TEST_CASE("arrow: the closed form equals the dense solve and the published form to 1e-10 in double") {
  Rig rig(kReference, literal("alpha=0.2:beta=3:window=5"), {{.start = Values(12, 0.0)}}, 1.0);
  std::vector<Values> window;
  for (int i = 0; i < 9; ++i) {
    const Values g = draw(i, 12), u = rig.taken(g);
    push(window, g, 5);
    for (const Values& wanted : {dense(window, g, 0.2, 3.0, 5.0), woodbury(window, g, 0.2, 3.0, 5.0)})
      check_close(u, wanted, kReference, 1.0, 1e-10 * length(wanted));
  }
}

TEST_CASE("arrow: preconditioned momentum equals the dense solve for a vector outside the window") {
  for (const Device d : kBoth) {
    Rig rig(d, literal("alpha=0.5:beta=2:window=3:momentum=0.9:momentum-form=gradient"), {{.start = Values(6, 0.0)}},
            1.0);
    std::vector<Values> window;
    Values momentum(6, 0.0);
    for (int i = 0; i < 8; ++i) {
      const Values g = draw(i, 6), u = rig.taken(g);
      for (std::size_t k = 0; k < 6; ++k) momentum[k] = 0.9 * momentum[k] + g[k];
      push(window, g, 3);
      check_close(u, dense(window, momentum, 0.5, 2.0, 3.0), d, 64.0, 1e-9);
    }
  }
}

TEST_CASE("arrow: a rounded ring keeps the exact gradient as right-hand side") {
  for (const Device d : kBoth) {
    Rig rig(d, literal("alpha=0.5:beta=2:window=3:ring=bf16"), {{.start = Values(6, 0.0)}}, 1.0);
    std::vector<Values> window;
    for (int i = 0; i < 6; ++i) {
      const Values g = draw(i, 6), u = rig.taken(g);
      Values rounded = g;
      for (double& x : rounded) x = double(bf16(x));
      push(window, rounded, 3);
      check_close(u, dense(window, g, 0.5, 2.0, 3.0), d, 32.0, 1e-9);
    }
  }
}

TEST_CASE("arrow: beta 0 with alpha 1 is SGD bit for bit, clipped and decayed, with any ring and form of momentum") {
  const std::string off = "arrow:paper:warmup=none:base=sgd:blocks=all:alpha=1:beta=0:arrow-lr=0.1";
  const std::string ring = off + ":ring=bf16", heavy = ":momentum=0.9", vector = ":momentum=0.9:momentum-form=gradient";
  const std::vector<Piece> pieces = {{.start = draw(100, 33)}, {.start = draw(101, 31), .name = "w", .block = -1}};
  for (const Device d : kBoth) {
    const auto path = [&](const std::string& method) {
      Rig rig(d, method, pieces, 0.1, 0.05, /*max_norm=*/7.5);
      int clipped = 0;
      for (int i = 0; i < 12; ++i) {
        rig.step(std::vector<Values>{draw(i, 33), draw(i, 31, 1)});
        clipped += rig.record.clip_scale < 1.0;
      }
      CHECK(clipped > 2);
      CHECK(clipped < 12);
      return rig.weights();
    };
    const Values plain = path("sgd:momentum=0:decoupled"), with_momentum = path("sgd:momentum=0.9:decoupled");
    CHECK(plain != with_momentum);
    for (const std::string& method : {off, ring}) {
      CAPTURE(method);
      CHECK(path(method) == plain);
      CHECK(path(method + heavy) == with_momentum);
      CHECK(path(method + vector) == with_momentum);
    }
  }
}

TEST_CASE("arrow: Gram matrices add over a group's tensors, and a tensor without gradient adds nothing") {
  for (const Device d : kBoth) {
    const std::string method = literal("alpha=0.5:beta=1:window=3");
    Rig whole(d, method, {{.start = Values(5, 0.0)}}, 1.0);
    Rig split(d, method, {{.start = Values(2, 0.0)}, {.start = Values(3, 0.0), .name = "blocks.0.attn.b.weight"}}, 1.0);
    Rig extra(d, method, {{.start = Values(5, 0.0)}, {.start = Values(4, 0.0), .name = "blocks.0.attn.b.weight"}}, 1.0);
    for (int i = 0; i < 5; ++i) {
      const Values g = draw(i, 5);
      whole.step(g);
      split.step(std::vector<Values>{{g[0], g[1]}, {g[2], g[3], g[4]}});
      extra.step(std::vector<Values>{g, Values(4, 0.0)});
    }
    const Values w = whole.weights(), a = split.weights(0), b = split.weights(1);
    check_close({a[0], a[1], b[0], b[1], b[2]}, w, d, 16.0);
    CHECK(extra.weights() == w);
    CHECK(extra.weights(1) == Values(4, 0.0));
  }
}

TEST_CASE("arrow: a gradient that is not finite changes nothing but the counters, as if the step had not been") {
  for (const Device d : kBoth)
    for (const char* method : {"arrow:window=3:warmup-steps=2",
                               "arrow:paper:window=3:ring=bf16:momentum=0.5:momentum-form=gradient:warmup=none"}) {
      const std::vector<Piece> pieces = {{.start = Values(7, 0.1)},
                                         {.start = Values(3, 0.2), .name = "fc", .module = Module::fc1}};
      Rig clean(d, method, pieces, 0.01, 0.1, 1.0), hit(d, method, pieces, 0.01, 0.1, 1.0);
      for (int i = 0; i < 9; ++i) {
        clean.step(std::vector<Values>{draw(i, 7), draw(i, 3, 1)});
        hit.step(std::vector<Values>{draw(i, 7), draw(i, 3, 1)});
        if (i != 4) continue;
        for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
          Values g = draw(99, 7);
          g[2] = bad;
          hit.step(std::vector<Values>{g, draw(99, 3, 1)});
          hit.step(std::vector<Values>{draw(98, 7), {0, bad, 0}});  // outside ARROW's own parameters
        }
      }
      CHECK(hit.record.skipped == 4);
      CHECK(hit.arrow().skipped == 4);
      hit.record.skipped = 0, hit.record.step = clean.record.step;
      hit.change_arrow([](ArrowState& s) { s.skipped = 0; });
      CHECK(hit.bits() == clean.bits());  // weights, window, Gram matrix, moments and coefficients
    }
}

TEST_CASE("arrow: a zero gradient enters no window and moves nothing but the decay") {
  for (const Device d : kBoth) {
    Rig rig(d, literal("alpha=0.5:beta=1:window=3"), {{.start = {0, 0}}}, 1.0);
    rig.step(Values{1, 0}), rig.step(Values{1, 1});
    const Values before = rig.weights();
    rig.step(Values{0, 0});
    CHECK(rig.weights() == before);
    CHECK(rig.arrow().filled == 2);
    check_close(rig.taken({2, -1}), {72.0 / 101, -66.0 / 101}, d, 4.0);
  }
}

TEST_CASE("arrow: a zero gradient leaves momentum as it is, and the steps after it go on from there") {
  for (const Device d : kBoth)
    for (const char* form : {"steps", "gradient"}) {
      CAPTURE(form);
      const std::string method = literal(std::string("alpha=0.5:beta=2:window=3:momentum=0.9:momentum-form=") + form);
      Rig with(d, method, {{.start = Values(6, 0.0)}}, 1.0), without(d, method, {{.start = Values(6, 0.0)}}, 1.0);
      for (int i = 0; i < 6; ++i) {
        if (i == 3 || i == 0) CHECK(with.direction(Values(6, 0.0)) == Values(6, 0.0));
        CHECK(with.direction(draw(i, 6)) == without.direction(draw(i, 6)));
      }
    }
}

TEST_CASE("arrow: clip factors decided after the observation scale the columns they belong to") {
  for (const Device d : kBoth) {
    Rig rig(d, literal("alpha=0.5:beta=1:window=4"), {{.start = Values(5, 0.0)}}, 1.0, 0.0, /*max_norm=*/1.5);
    std::vector<Values> window;
    for (int i = 0; i < 6; ++i) {
      Values g = draw(i, 5);
      const Values u = rig.taken(g);
      const double norm = std::sqrt(dot(g, g)), s = norm > 1.5 ? 1.5 / norm : 1.0;
      for (double& x : g) x *= s;
      push(window, g, 4);
      check_close(u, dense(window, g, 0.5, 1.0, 4.0), d, 16.0);
    }
  }
}

TEST_CASE("arrow: warm-up is the base optimizer bit for bit for W steps, and starts again when the window is cleared") {
  const std::vector<Piece> pieces = {{.start = draw(100, 37)}, {.start = draw(101, 5), .name = "w", .block = -1}};
  const auto gradients = [](int i) { return std::vector<Values>{draw(i, 37), draw(i, 5, 1)}; };
  for (const Device d : kBoth)
    for (const auto& [form, base] : std::vector<std::pair<std::string, std::string>>{
             {"arrow:window=4", "adamw"},
             {"arrow:window=4:ring=bf16", "adamw"},
             {"arrow:paper:window=4", "adamw"},
             {"arrow:paper:base=sgd:window=4:momentum=0.5", "sgd:momentum=0:decoupled"}}) {
      const std::string& method = form;
      CAPTURE(method);
      Rig adamw(d, base, pieces, 0.01, 0.05, 7.5), arrow(d, method, pieces, 0.01, 0.05, 7.5);
      for (int i = 0; i < 4; ++i) adamw.step(gradients(i)), arrow.step(gradients(i));
      CHECK(arrow.weights(0) == adamw.weights(0));
      CHECK(arrow.arrow().use_base == 1);
      for (int i = 4; i < 6; ++i) adamw.step(gradients(i)), arrow.step(gradients(i));
      CHECK(arrow.arrow().use_base == 0);
      CHECK(arrow.weights(0) != adamw.weights(0));
      CHECK(arrow.weights(1) == adamw.weights(1));  // everything else is the base's all along

      // A new task: from the same weights and moments both take the same steps again, W of them.
      StepContext ctx = arrow.context(), other = adamw.context();
      arrow.optimizer->task_boundary(ctx, true), adamw.optimizer->task_boundary(other, true);
      arrow.list[0]->master.copy_from(adamw.list[0]->master);
      for (int i = 6; i < 10; ++i) {
        adamw.step(gradients(i)), arrow.step(gradients(i));
        CHECK(arrow.arrow().use_base == 1);
        CHECK(arrow.arrow().filled == i - 5);
      }
      CHECK(arrow.weights(0) == adamw.weights(0));
      arrow.step(gradients(10));
      CHECK(arrow.arrow().use_base == 0);
    }
}

TEST_CASE("arrow: a zero gradient during warm-up leaves the base optimizer its own step") {
  for (const Device d : kBoth) {
    Rig adamw(d, "adamw", {{.start = draw(100, 9)}}, 0.01, 0.05),
        arrow(d, "arrow", {{.start = draw(100, 9)}}, 0.01, 0.05);
    for (const Values& g : {draw(0, 9), Values(9, 0.0), draw(1, 9)}) adamw.step(g), arrow.step(g);
    CHECK(arrow.weights() == adamw.weights());
    CHECK(arrow.arrow().filled == 2);
  }
}

TEST_CASE("arrow: grafting takes the other step's length and keeps the direction") {
  for (const Device d : kBoth) {
    const std::vector<Piece> pieces = {{.start = Values(9, 0.0)}};
    const std::string form = "damping=dimensionless:kappa=5:window=3";
    Rig adamw(d, "adamw", pieces, 1.0), plain(d, literal(form), pieces, 1.0);
    Rig grafted(d, "arrow:warmup=none:window=3:kappa=5", pieces, 1.0),
        sgd(d, literal(form + ":graft=sgd"), pieces, 1.0);
    const double rounding = d == kReference ? 1e-12 : sum_error(9, 1.0);  // of a length of nine terms, per its size
    for (int i = 0; i < 6; ++i) {
      const Values g = draw(i, 9), a = adamw.direction(g), u = plain.direction(g);
      for (const auto& [step, other] : {std::pair{grafted.direction(g), a}, {sgd.direction(g), g}}) {
        CHECK(length(step) == doctest::Approx(length(other)).epsilon(rounding));
        check_close(scaled(step, length(u) / length(step)), u, d, 4.0 * length(u), 1e-12);
      }
    }
    CHECK(length(sgd.direction(Values(9, 0.0))) == 0.0);  // 0 stays 0
  }
}

TEST_CASE("norm-control: AdamW's direction with the length of ARROW's ungrafted step, after the same warm-up") {
  for (const Device d : kBoth)
    for (const bool adam : {true, false}) {
      const std::vector<Piece> pieces = {{.start = Values(9, 0.0)},
                                         {.start = Values(4, 0.0), .name = "w", .block = -1}};
      const std::string base = adam ? "base=adamw" : "base=sgd";
      const std::string options = ":window=3:kappa=5:arrow-lr=1:graft=none:" + base;
      Rig control(d, "norm-control" + options, pieces, 1.0), arrow(d, "arrow" + options, pieces, 1.0);
      Rig other(d, adam ? "adamw" : "sgd:momentum=0", pieces, 1.0);
      const double rounding = d == kReference ? 1e-12 : sum_error(9, 1.0);
      for (int i = 0; i < 7; ++i) {
        const std::vector<Values> g = {draw(i, 9), draw(i, 4, 1)};
        const Values u = arrow.direction(g), b = other.direction(g), c = control.direction(g);
        if (i < 3) CHECK(c == b);
        if (i >= 3) {
          CHECK(length(c) == doctest::Approx(length(u)).epsilon(rounding));
          check_close(scaled(c, length(b) / length(c)), b, d, 4.0 * length(b), 1e-12);
          CHECK(std::abs(length(u) / length(b) - 1.0) > 0.01);  // so the two lengths are told apart
        }
        CHECK(control.weights(1) == other.weights(1));
      }
    }
}

TEST_CASE("arrow: at a task boundary the window is cleared, kept, or cleared without a new warm-up") {
  const std::string common = "arrow:paper:base=sgd:arrow-lr=1:blocks=all:alpha=0.5:beta=1:window=3:";
  for (const Device d : kBoth)
    for (const bool keep_state : {true, false}) {  // of the optimizer; the window has a policy of its own
      const auto after = [&](const std::string& options) {
        Rig rig(d, common + options, {{.start = {0, 0}}}, 0.5);
        for (int i = 0; i < 4; ++i) rig.step(Values{1, 0.5});
        StepContext ctx = rig.context();
        rig.optimizer->task_boundary(ctx, keep_state);
        return rig.direction({3, 4});
      };
      const double f = 1.0 / (0.5 + 25.0 / 3);  // g / (alpha + beta/W |g|^2): a window with nothing else in it
      check_close(after("warmup-steps=2:boundary=clear"), {1.5, 2.0}, d, 4.0);  // warm-up again: the base's rate 0.5
      check_close(after("boundary=clear:warmup=none:divisor=filled"), {3 / 25.5, 4 / 25.5}, d, 4.0);
      check_close(after("warmup-steps=2:boundary=clear:warmup=beta-ramp"), {6.0, 8.0}, d, 8.0);
      check_close(after("warmup-steps=2:boundary=clear-keep-warm"), {3 * f, 4 * f}, d, 4.0);
      check_close(after("warmup-steps=2:boundary=clear-keep-warm:warmup=beta-ramp"), {3 * f, 4 * f}, d, 4.0);
      const Values wanted = dense({{1, 0.5}, {1, 0.5}, {3, 4}}, {3, 4}, 0.5, 1.0, 3.0);
      check_close(after("warmup-steps=2:boundary=keep"), wanted, d, 16.0);
    }
}

TEST_CASE("arrow: momentum that survives or does not survive a boundary is preconditioned by the windows of its task") {
  for (const Device d : kBoth)
    for (const std::string boundary : {"clear", "keep"})
      for (const bool keep_state : {true, false}) {
        Rig rig(d, literal("alpha=0.5:beta=2:window=3:momentum=0.9:momentum-form=gradient:boundary=" + boundary),
                {{.start = Values(6, 0.0)}}, 1.0);
        std::vector<Values> window;
        Values momentum(6, 0.0);
        for (int i = 0; i < 10; ++i) {
          if (i == 5) {
            StepContext ctx = rig.context();
            rig.optimizer->task_boundary(ctx, keep_state);
            if (boundary == "clear") window.clear();
            if (!keep_state) momentum.assign(6, 0.0);
          }
          const Values g = draw(i, 6), u = rig.direction(g);
          for (std::size_t k = 0; k < 6; ++k) momentum[k] = 0.9 * momentum[k] + g[k];
          push(window, g, 3);
          check_close(u, dense(window, momentum, 0.5, 2.0, 3.0), d, 64.0, 1e-9);
        }
      }
}

TEST_CASE("arrow: beta-ramp raises beta over the warm-up steps, and alpha follows its schedule") {
  const auto path = [](const std::string& options, double ArrowState::*what) {
    Rig rig(kReference, "arrow:paper:base=sgd:blocks=all:window=3:" + options, {{.start = {0, 0}}}, 1.0);
    Values values;
    for (int t = 0; t < 5; ++t) {
      rig.step(draw(t, 2));
      values.push_back(rig.arrow().*what);
      CHECK(rig.arrow().use_base == (options.find("warmup=base") != std::string::npos && t < 3));
    }
    return values;
  };
  const auto close = [](const Values& got, const Values& wanted) { check_close(got, wanted, kReference, 1.0, 1e-14); };
  close(path("beta=6:warmup=beta-ramp:warmup-steps=3", &ArrowState::beta), {0, 2, 4, 6, 6});
  close(path("alpha=4:alpha-final=1:warmup=alpha-decay:warmup-steps=3", &ArrowState::alpha), {4, 3, 2, 1, 1});
  close(path("alpha=4:warmup=none:alpha-schedule=linear:alpha-steps=4:alpha-final=2", &ArrowState::alpha),
        {4, 3.5, 3, 2.5, 2});
  close(path("alpha=4:warmup=base:alpha-schedule=exponential:alpha-steps=2", &ArrowState::alpha), {4, 2, 1, 1, 1});
  close(path("alpha=4:warmup=base", &ArrowState::alpha), {4, 4, 4, 4, 4});
  // Dimensionless: beta is kappa / tr C, and the ramp acts on it; alpha multiplies the identity.
  close(path("damping=dimensionless:alpha=4:warmup=none:alpha-schedule=linear:alpha-steps=2", &ArrowState::alpha),
        {4, 2.5, 1, 1, 1});
}

TEST_CASE("arrow: relative damping has a floor, and takes no part in the ramp of beta") {
  for (const Device d : kBoth) {
    const std::string relative = "arrow:paper:base=sgd:blocks=all:arrow-lr=1:damping=relative:";
    // Ramp: the first step has beta 0 and is g / alpha, with alpha = rho tr(K) / (D n) of the full beta.
    Rig ramp(d, relative + "rho=0.5:window=2:warmup=beta-ramp", {{.start = {0, 0}}}, 1.0);
    check_close(ramp.direction({3, 4}), {3 / 6.25, 4 / 6.25}, d, 4.0);
    // 1e-12 of the largest diagonal entry that the window ever held, until it is cleared.
    Rig floor(d, relative + "rho=1e-12:window=1:warmup=none", {{.start = {0, 0}}}, 1.0);
    floor.step(Values{1000, 0}), floor.step(Values{1e-6, 0});
    CHECK(floor.arrow().alpha == doctest::Approx(1e-6).epsilon(1e-12));
    StepContext ctx = floor.context();
    floor.optimizer->task_boundary(ctx, true);
    floor.step(Values{1e-15, 0});
    CHECK(floor.arrow().alpha == 1e-30);
  }
}

TEST_CASE("arrow: an update inside the backward pass is the same update, without what needs all gradients first") {
  const auto piece = [](const std::string& name, int block, int seed) {
    return Piece{.start = draw(seed, 24), .name = name, .block = block};
  };
  const std::vector<Piece> pieces = {piece("blocks.0.attn.proj.weight", 0, 1),
                                     piece("blocks.1.attn.proj.weight", 1, 2),
                                     {.start = draw(3, 8), .name = "head.weight", .module = Module::head, .block = -1}};
  const auto gradients = [](int i) { return std::vector<Values>{draw(i, 24), draw(i, 24, 1), draw(i, 8, 2)}; };
  for (const Device d : kBoth)
    for (const std::string options :
         {"window=3", "window=3:grouping=global", "window=2:momentum=0.9:warmup=none", "window=3:base=sgd:ring=bf16"}) {
      CAPTURE(options);
      Rig after(d, "arrow:" + options, pieces), inside(d, "arrow:update=backward:" + options, pieces);
      for (int i = 0; i < 9; ++i) {
        after.step(gradients(i)), inside.step(gradients(i));
        CHECK(after.bits() == inside.bits());
      }
      // A group's weights change before the gradients below it are final; with one window for all, when the last is.
      const bool global = options.find("global") != std::string::npos;
      StepContext ctx = inside.context();
      inside.optimizer->prepare(ctx);
      const Values upper = inside.weights(1), lower = inside.weights(0);
      inside.optimizer->on_gradient_final(1, ctx);
      CHECK((inside.weights(1) == upper) == global);
      CHECK(inside.weights(0) == lower);
      inside.optimizer->on_gradient_final(0, ctx);
      CHECK(inside.weights(1) != upper);
      CHECK(inside.weights(0) != lower);
    }
  // A step that was skipped says nothing about the next one.
  Rig rig(kCpu, "arrow:update=backward:window=2", pieces);
  auto bad = gradients(0);
  bad[2][0] = std::numeric_limits<double>::infinity();
  rig.step(bad);
  CHECK(rig.record.skipped == 1);
  const Values before = rig.weights(0);
  rig.step(gradients(1));
  CHECK(rig.weights(0) != before);

  Rig clipped(kCpu, "arrow:update=backward", pieces, -1.0, 0.0, /*max_norm=*/1.0);
  CHECK(contains(usage_error([&] { clipped.step(gradients(0)); }), "use --clip-norm 0"));
  CHECK(contains(usage_error([&] { Rig(kCpu, "arrow:update=backward+l2init", pieces); }), "remove l2init"));
}
