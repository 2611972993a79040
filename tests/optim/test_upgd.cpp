// tests/optim/test_upgd.cpp - UPGD against a loop in double precision that is written from methods.md A.7 alone.
#include <cmath>

#include "tests/optim/rig.h"

namespace eg::test {
namespace {

/// Two parameters, the second a norm: biases and norms do not decay.
std::vector<Piece> pieces() {
  Piece norm{.start = {1.0, 0.5, -0.25}, .name = "blocks.0.norm1.weight", .module = Module::norm1, .decays = false};
  return {{{0.7, -0.2, -0.9, 0.1, 2.0}}, norm};
}
std::vector<Values> gradients(int step) {
  std::vector<Values> all{Values(5), Values(3)};
  double x = 0.3 + 0.7 * step;
  for (Values& g : all)
    for (double& v : g) v = double(float(std::sin(x))), x += 1.1;
  return all;
}

struct Expected {
  double lr = 0.1, decay = 0.5, beta = 0.9, noise = 0.0;
  bool protects = true;
  std::vector<Values> w{pieces()[0].start, pieces()[1].start}, u{Values(5, 0.0), Values(3, 0.0)};
  int t = 0;

  /// noise_of(p, i): the normal of element i of parameter p.
  template <class F>
  void step(const std::vector<Values>& g, const F& noise_of) {
    t += 1;
    double most = 1e-12;
    for (std::size_t p = 0; p < w.size(); ++p)
      for (std::size_t i = 0; i < w[p].size(); ++i) {
        u[p][i] = beta * u[p][i] + (1.0 - beta) * (-g[p][i] * w[p][i]);
        if (u[p][i] > most) most = u[p][i];
      }
    for (std::size_t p = 0; p < w.size(); ++p)
      for (std::size_t i = 0; i < w[p].size(); ++i) {
        const double corrected = u[p][i] / (1.0 - std::pow(beta, t));
        const double k = 1.0 / (1.0 + std::exp(-corrected / most)), n = noise * noise_of(p, i);
        const double move = protects ? (g[p][i] + n) * (1.0 - k) : g[p][i] + n * (1.0 - k);
        w[p][i] = (1.0 - lr * (p == 0 ? decay : 0.0)) * w[p][i] - lr * move;
      }
  }
};

}  // namespace

TEST_CASE("upgd: twenty steps are those of the formula, with noise and without, protecting or not") {
  for (const Device d : kBoth)
    for (const bool noisy : {false, true})
      for (const bool protects : {false, true}) {
        CAPTURE(noisy);
        CAPTURE(protects);
        Rig rig(d, cat("upgd:beta=0.9:noise=", noisy ? 0.5 : 0.0, ":protect=", protects ? "true" : "false"), pieces(),
                0.1, 0.5);
        rig.record.seed = 31;
        Expected expected;
        expected.noise = noisy ? 0.5 : 0.0, expected.protects = protects;
        for (int i = 0; i < 20; ++i) {
          const Key k = key(31, "upgd", "noise", std::uint32_t(i));
          expected.step(gradients(i),
                        [&](std::size_t p, std::size_t e) { return k.normal(std::uint64_t(rig.list[p]->offset) + e); });
          rig.step(gradients(i));
          // In fp32 a step is off by some 20 roundings of numbers up to 3 (the noise, the gate), and decay forgets none
          // of the last twenty steps.
          for (std::size_t p = 0; p < 2; ++p) check_close(rig.weights(p), expected.w[p], d, 100.0, 1e-12);
        }
      }
}

TEST_CASE("upgd: at the first step the weight of largest utility stays, one that the loss pushes away moves whole") {
  for (const Device d : kBoth) {
    // Utilities 1, -1, 0, times 1 - beta; the largest is not corrected, so the arguments are 1000, -1000, 0.
    Rig rig(d, "upgd:noise=0", {{{1.0, 1.0, 0.0}}}, 0.1, 0.0);
    check_close(rig.taken(Values{-1.0, 1.0, 1.0}), {0.0, 0.1, 0.05}, d);
  }
}

TEST_CASE("upgd: where every utility is negative the gate is open, not turned round") {
  for (const Device d : kBoth) {
    Rig rig(d, "upgd:noise=0", {{{1.0, 2.0}}}, 0.1, 0.0);
    check_close(rig.taken(Values{1.0, 1.0}), {0.1, 0.1}, d, 2.0);
  }
}

TEST_CASE("upgd: without protection and noise it is SGD, bit for bit, whatever the utilities") {
  for (const Device d : kBoth) {
    Rig upgd(d, "upgd:noise=0:protect=false", pieces(), 0.1, 0.5),
        sgd(d, "sgd:momentum=0:decoupled", pieces(), 0.1, 0.5);
    for (int i = 0; i < 9; ++i) upgd.step(gradients(i)), sgd.step(gradients(i));
    for (std::size_t p = 0; p < 2; ++p) CHECK(upgd.weights(p) == sgd.weights(p));
  }
}

TEST_CASE("upgd: the clip factor scales gradients and utilities; padding between parameters stays zero under noise") {
  for (const Device d : kBoth) {
    Rig clipped(d, "upgd:noise=0:beta=0.5", {{{1.0, -1.0}}}, 0.1, 0.0, 1.0),
        plain(d, "upgd:noise=0:beta=0.5", {{{1.0, -1.0}}}, 0.1);
    clipped.step(Values{6.0, 8.0}), plain.step(Values{0.6, 0.8});
    check_close(clipped.weights(), plain.weights(), d, 2.0);
    Rig noisy(d, "upgd:noise=1", pieces(), 0.1);
    noisy.step(gradients(0));
    const Values all = noisy.arena.master.to_host();
    std::size_t zeros = 0;
    for (const double x : all) zeros += x == 0.0;
    CHECK(zeros == all.size() - 8);
  }
}

TEST_CASE("upgd: mistakes are named") {
  const auto made = [](const std::string& method) { return usage_error([&] { Rig(kCpu, method, {{{1.0}}}); }); };
  CHECK(contains(made("upgd:beta=1"), "beta"));
  CHECK(contains(made("upgd:sigma=1"), "noise"));
}

}  // namespace eg::test
