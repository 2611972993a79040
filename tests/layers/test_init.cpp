// tests/layers/test_init.cpp - the distribution of initial values, and that they depend on seed, name and index alone.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "engine/parallel.h"
#include "layers/init.h"
#include "model.h"

using namespace eg;
using namespace eg::test;

namespace {

struct Moments {
  double mean = 0.0, std = 0.0, largest = 0.0;
};
Moments moments(const std::vector<double>& x) {
  Moments m;
  for (const double v : x) m.mean += v / double(x.size()), m.largest = std::max(m.largest, std::abs(v));
  for (const double v : x) m.std += (v - m.mean) * (v - m.mean) / double(x.size());
  m.std = std::sqrt(m.std);
  return m;
}

/// Five standard errors: of a mean std / sqrt(n), of a normal's standard deviation std / sqrt(2 n).
void check_normal(const std::vector<double>& x, double std) {
  const Moments m = moments(x);
  const double n = double(x.size());
  CHECK(std::abs(m.mean) < 5.0 * std / std::sqrt(n));
  CHECK(std::abs(m.std - std) < 5.0 * std / std::sqrt(2.0 * n));
}

/// Largest distance between the empirical distribution and the normal one; 1.95 / sqrt(n) is passed once in a thousand.
double distance_from_normal(std::vector<double> x, double std) {
  std::sort(x.begin(), x.end());
  double largest = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = 0.5 * std::erfc(-x[i] / std / std::sqrt(2.0));
    largest = std::max({largest, std::abs(double(i) / double(x.size()) - expected),
                        std::abs(double(i + 1) / double(x.size()) - expected)});
  }
  return largest;
}

}  // namespace

TEST_CASE("init: a model starts with timm's distributions") {
  VitConfig c = small_config();
  c.dim = 96, c.depth = 2, c.heads = 3, c.registers = 4, c.layer_scale = 0.01, c.qk_norm = true;
  Model m(c, kReference, 3);
  for (const Param* p : m.params) {
    CAPTURE(p->name);
    const std::vector<double> x = p->master.to_host();
    const bool bias = p->name.ends_with(".bias");
    if (p->name.starts_with("patch_embed")) {
      const double bound = 1.0 / std::sqrt(48.0);  // fan-in 3 x 4 x 4
      const Moments s = moments(x);
      CHECK(s.largest <= bound);
      CHECK(s.largest > 0.9 * bound);
      // A uniform number's standard deviation is bound / sqrt 3; its own error about 0.45 of that over sqrt n.
      CHECK(std::abs(s.std - bound / std::sqrt(3.0)) < 5.0 * 0.45 * bound / std::sqrt(3.0 * double(x.size())));
    } else if (p->name.find("ls") != std::string::npos && p->name.ends_with("gamma")) {
      CHECK(std::all_of(x.begin(), x.end(), [](double v) { return v == 0.01; }));
    } else if (p->role == Role::norm) {
      CHECK(std::all_of(x.begin(), x.end(), [&](double v) { return v == (bias ? 0.0 : 1.0); }));
    } else if (bias) {
      CHECK(std::all_of(x.begin(), x.end(), [](double v) { return v == 0.0; }));
    } else {
      const bool token = p->name == "cls_token" || p->name == "reg_token";
      check_normal(x, token ? 1e-6 : 0.02);
      CHECK(distance_from_normal(x, token ? 1e-6 : 0.02) < 1.95 / std::sqrt(double(x.size())));
    }
  }
}

TEST_CASE("init: values depend on seed, name and redraw, and on nothing else") {
  const VitConfig c = small_config();
  Model a(c, kCpu, 1), again(c, kCpu, 1), other_seed(c, kCpu, 2), reference(c, kReference, 1);
  VitConfig deeper = c;
  deeper.depth = 5, deeper.classes = 50;
  Model larger(deeper, kCpu, 1);
  for (Param* p : a.params) {
    CAPTURE(p->name);
    const std::vector<double> x = p->master.to_host();
    CHECK(x == again.param(p->name).master.to_host());
    if (!p->name.starts_with("head")) CHECK(x == larger.param(p->name).master.to_host());
    std::vector<double> rounded = reference.param(p->name).master.to_host();
    for (double& v : rounded) v = double(float(v));
    CHECK(x == rounded);
    if (moments(x).std > 0.0) CHECK(x != other_seed.param(p->name).master.to_host());
  }
  CHECK(a.param("blocks.0.mlp.fc1.weight").master.to_host() != a.param("blocks.1.mlp.fc1.weight").master.to_host());
  const Param& w = a.param("head.weight");
  CHECK(ParamArena::draw(w, 1, 0) != ParamArena::draw(w, 1, 1));
  CHECK(ParamArena::draw(w, 1, 1) == ParamArena::draw(w, 1, 1));
}

TEST_CASE("init: draws do not depend on the number of threads") {
  const int before = num_threads();
  const Init rules[] = {{Init::Rule::normal, 1.0}, {Init::Rule::trunc_normal, 3.0}, {Init::Rule::uniform, 2.0}};
  for (const Init& init : rules) {
    set_num_threads(1);
    const std::vector<double> one = draw(init, 50001, key(3, "init", "x"));
    set_num_threads(3);
    CHECK(one == draw(init, 50001, key(3, "init", "x")));
  }
  set_num_threads(before);
}

TEST_CASE("init: the truncated normal is cut at 2 and follows the normal distribution inside") {
  const double std = 1.5;
  std::vector<double> x = draw({Init::Rule::trunc_normal, std}, 40000, key(5, "init", "wide"));
  CHECK(moments(x).largest <= 2.0);
  CHECK(moments(x).largest > 1.99);
  std::sort(x.begin(), x.end());
  const auto phi = [&](double v) { return 0.5 * std::erfc(-v / std / std::sqrt(2.0)); };
  double largest = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = (phi(x[i]) - phi(-2.0)) / (phi(2.0) - phi(-2.0));
    largest = std::max(largest, std::abs((double(i) + 0.5) / double(x.size()) - expected));
  }
  CHECK(largest < 1.95 / std::sqrt(double(x.size())));
}

TEST_CASE("init: a scale that is no scale is refused") {
  CHECK_THROWS_AS(draw({Init::Rule::normal, -1.0}, 3, {}), Error);
  CHECK_THROWS_AS(draw({Init::Rule::uniform, double(NAN)}, 3, {}), Error);
  CHECK_THROWS_AS(draw({Init::Rule::normal, double(HUGE_VAL)}, 3, {}), Error);
  CHECK(draw({Init::Rule::constant, -1.0}, 2, {}) == std::vector<double>{-1.0, -1.0});
  CHECK(draw({Init::Rule::normal, 1.0}, 0, {}).empty());
}
