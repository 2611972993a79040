// tests/optim/test_arrow_step.cpp - ARROW against a dense solve, and everything around the formula: warm-up, windows at
// task boundaries, grafting, momentum, clipping, faults (methods.md A.3.4 to A.3.7, decisions on timing and clipping).
#include <cmath>
#include <limits>

#include "engine/rng.h"
#include "tests/optim/rig.h"

using namespace eg;
using namespace eg::test;

namespace {

std::string literal(const std::string& options) {
  return "arrow:paper:warmup=none:base=sgd:arrow-lr=1:blocks=all:" + options;
}

Values draw(int step, std::size_t n, std::uint32_t stream = 0) {
  const Key k = key(3, "test", "gradient", stream);
  Values g(n);
  for (std::size_t i = 0; i < n; ++i) g[i] = double(float(k.normal(std::uint64_t(step) * n + i)));
  return g;
}

double dot(const Values& a, const Values& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// (alpha I + beta/D sum_k g_k g_k^T)^-1 v by Gaussian elimination on the P x P matrix.
Values dense(const std::vector<Values>& window, const Values& v, double alpha, double beta, double divisor) {
  const std::size_t n = v.size();
  std::vector<Values> m(n, Values(n + 1, 0.0));
  for (std::size_t i = 0; i < n; ++i) {
    m[i][i] = alpha, m[i][n] = v[i];
    for (const Values& g : window)
      for (std::size_t j = 0; j < n; ++j) m[i][j] += beta / divisor * g[i] * g[j];
  }
  for (std::size_t p = 0; p < n; ++p)
    for (std::size_t i = 0; i < n; ++i) {
      if (i == p) continue;
      const double f = m[i][p] / m[p][p];
      for (std::size_t j = p; j <= n; ++j) m[i][j] -= f * m[p][j];
    }
  Values x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = m[i][n] / m[i][i];
  return x;
}

}  // namespace

TEST_CASE("arrow: the closed form equals the dense solve to 1e-10 in double") {
  Rig rig(kReference, literal("alpha=0.2:beta=3:window=5"), {{.start = Values(12, 0.0)}}, 1.0);
  std::vector<Values> window;
  for (int i = 0; i < 9; ++i) {
    const Values g = draw(i, 12), u = rig.taken(g);
    window.push_back(g);
    if (window.size() > 5) window.erase(window.begin());
    const Values wanted = dense(window, g, 0.2, 3.0, 5.0);
    check_close(u, wanted, kReference, 1.0, 1e-10 * std::sqrt(dot(wanted, wanted)));
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
      window.push_back(g);
      if (window.size() > 3) window.erase(window.begin());
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
      window.push_back(rounded);
      if (window.size() > 3) window.erase(window.begin());
      check_close(u, dense(window, g, 0.5, 2.0, 3.0), d, 32.0, 1e-9);
    }
  }
}

TEST_CASE("arrow: beta 0 is SGD bit for bit, with either form of momentum") {
  for (const Device d : kBoth) {
    Rig sgd(d, "sgd:momentum=0", {{.start = Values(33, 0.5)}}, 0.1);
    Rig arrow(d, "arrow:paper:warmup=none:base=sgd:blocks=all:alpha=1:beta=0:arrow-lr=0.1",
              {{.start = Values(33, 0.5)}}, 0.1);
    Rig heavy(d, "sgd:momentum=0.9", {{.start = Values(33, 0.5)}}, 0.1);
    Rig m1(d, "arrow:paper:warmup=none:base=sgd:blocks=all:alpha=1:beta=0:arrow-lr=0.1:momentum=0.9",
           {{.start = Values(33, 0.5)}}, 0.1);
    Rig m2(
        d,
        "arrow:paper:warmup=none:base=sgd:blocks=all:alpha=1:beta=0:arrow-lr=0.1:momentum=0.9:momentum-form=gradient",
        {{.start = Values(33, 0.5)}}, 0.1);
    for (int i = 0; i < 12; ++i)
      for (Rig* r : {&sgd, &arrow, &heavy, &m1, &m2}) r->step(draw(i, 33));
    CHECK(arrow.weights() == sgd.weights());
    CHECK(m1.weights() == heavy.weights());
    CHECK(m2.weights() == heavy.weights());
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
      CHECK(hit.weights(0) == clean.weights(0));
      CHECK(hit.weights(1) == clean.weights(1));
      CHECK(hit.arrow().filled == clean.arrow().filled);
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

TEST_CASE("arrow: clip factors decided after the observation scale the columns they belong to") {
  for (const Device d : kBoth) {
    Rig rig(d, literal("alpha=0.5:beta=1:window=4"), {{.start = Values(5, 0.0)}}, 1.0, 0.0, /*max_norm=*/1.5);
    std::vector<Values> window;
    for (int i = 0; i < 6; ++i) {
      Values g = draw(i, 5);
      const Values u = rig.taken(g);
      const double norm = std::sqrt(dot(g, g)), s = norm > 1.5 ? 1.5 / norm : 1.0;
      for (double& x : g) x *= s;
      window.push_back(g);
      if (window.size() > 4) window.erase(window.begin());
      check_close(u, dense(window, g, 0.5, 1.0, 4.0), d, 16.0);
    }
  }
}

TEST_CASE("arrow: warm-up is the base optimizer's step, then ARROW takes over") {
  for (const Device d : kBoth) {
    const std::vector<Piece> pieces = {{.start = Values(9, 0.3)}};
    // A decay that fp32 holds: segments of the arena store theirs as fp32.
    Rig adamw(d, "adamw", pieces, 0.01, 0.125), arrow(d, "arrow:window=4", pieces, 0.01, 0.125);
    for (int i = 0; i < 4; ++i) adamw.step(draw(i, 9)), arrow.step(draw(i, 9));
    check_close(arrow.weights(), adamw.weights(), d, 1.0, 1e-15);
    CHECK(arrow.arrow().use_base == 1);
    const Values base = adamw.taken(draw(4, 9)), u = arrow.taken(draw(4, 9));
    CHECK(arrow.arrow().use_base == 0);
    CHECK(base != u);
  }
}

TEST_CASE("arrow: grafting takes the other step's length and keeps the direction") {
  for (const Device d : kBoth) {
    const std::vector<Piece> pieces = {{.start = Values(9, 0.0)}};
    Rig adamw(d, "adamw", pieces, 1.0), plain(d, literal("kappa=5:damping=dimensionless:window=3"), pieces, 1.0);
    Rig grafted(d, "arrow:warmup=none:window=3:kappa=5", pieces, 1.0),
        sgd(d, literal("kappa=5:damping=dimensionless:window=3:graft=sgd"), pieces, 1.0);
    for (int i = 0; i < 6; ++i) {
      const Values g = draw(i, 9), a = adamw.taken(g), u = plain.taken(g), v = grafted.taken(g), s = sgd.taken(g);
      CHECK(std::sqrt(dot(v, v)) == doctest::Approx(std::sqrt(dot(a, a))).epsilon(1e-5));
      CHECK(std::sqrt(dot(s, s)) == doctest::Approx(std::sqrt(dot(g, g))).epsilon(1e-5));
      CHECK(dot(u, v) / std::sqrt(dot(u, u) * dot(v, v)) == doctest::Approx(1.0).epsilon(1e-6));
    }
  }
}

TEST_CASE("arrow: at a task boundary the window is cleared, kept, or cleared without a new warm-up") {
  for (const Device d : kBoth) {
    const auto after = [&](const std::string& options) {
      Rig rig(
          d,
          "arrow:paper:base=sgd:arrow-lr=1:blocks=all:alpha=0.5:beta=1:window=3:warmup=base:warmup-steps=2:" + options,
          {{.start = {0, 0}}}, 0.5);
      for (int i = 0; i < 4; ++i) rig.step(Values{1, 0.5});
      StepContext ctx = rig.context();
      rig.optimizer->task_boundary(ctx, true);
      return rig.taken({3, 4});
    };
    const double f = 1.0 / (0.5 + 25.0 / 3);  // -g / (alpha + beta/W |g|^2): a window with nothing else in it
    check_close(after("boundary=clear"), {1.5, 2.0}, d, 4.0);  // warm-up again: the base's rate 0.5
    check_close(after("boundary=clear-keep-warm"), {3 * f, 4 * f}, d, 4.0);
    const Values kept = after("boundary=keep"), wanted = dense({{1, 0.5}, {1, 0.5}, {3, 4}}, {3, 4}, 0.5, 1.0, 3.0);
    check_close(kept, wanted, d, 16.0);
  }
}

TEST_CASE("arrow: beta-ramp and alpha-decay move the damping over the warm-up steps") {
  Rig ramp(kReference, "arrow:paper:base=sgd:blocks=all:window=3:beta=6:warmup=beta-ramp:warmup-steps=3",
           {{.start = {0, 0}}}, 1.0);
  Rig decay(kReference,
            "arrow:paper:base=sgd:blocks=all:window=3:alpha=4:alpha-final=1:warmup=alpha-decay:warmup-steps=3",
            {{.start = {0, 0}}}, 1.0);
  for (int t = 0; t < 5; ++t) {
    ramp.step(draw(t, 2)), decay.step(draw(t, 2));
    CHECK(ramp.arrow().beta == doctest::Approx(6.0 * std::min(1.0, t / 3.0)));
    CHECK(decay.arrow().alpha == doctest::Approx(4.0 - 3.0 * std::min(1.0, t / 3.0)));
    CHECK(ramp.arrow().use_base == 0);
  }
}
