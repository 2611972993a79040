// tests/optim/test_reference_methods.cpp - methods against a second implementation of them in PyTorch, step by step. The
// file is made by docs/benchmarks/reference_methods.py; the gradients are the recorded ones, so that errors of one step do
// not disturb the next.
#include <cmath>

#include "engine/safetensors.h"
#include "tests/optim/dense.h"

namespace eg::test {
namespace {

const std::vector<std::string> kNames{"proj", "fc1", "bias", "fc2", "gain"};

struct Recorded {
  SafetensorsFile file = SafetensorsFile::open(EVERGRAD_TEST_FILES "/cases/reference_methods.safetensors");
  std::string run;
  explicit Recorded(std::string name) : run(std::move(name)) {}
  std::int64_t steps() const { return file.find(run + "/activity")->shape[0]; }
  Values start(const std::string& what) const { return file.load(run + "/start/" + what, kCpu).to_host(); }
  /// What was recorded of one step.
  Values at(const std::string& what, std::int64_t step) const {
    return file.load(run + '/' + what, kCpu).slice(step, 1).to_host();
  }
};

std::vector<Piece> pieces_of(const Recorded& r) {
  std::vector<Piece> all(kNames.size());
  const Shape shapes[] = {{4, 3}, {8, 3}, {8}, {4, 8}, {4}};
  const Module modules[] = {Module::proj, Module::fc1, Module::fc1, Module::fc2, Module::norm1};
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].start = r.start(kNames[i]), all[i].name = "blocks.0." + kNames[i], all[i].module = modules[i];
    all[i].shape = shapes[i], all[i].decays = shapes[i].rank() == 2;
  }
  all[1].init = {Init::Rule::constant, 0.25}, all[1].link = {1, 2, 3};
  all[2].role = Role::bias, all[4].role = Role::norm;
  return all;
}

/// Runs the recorded steps; `allowed(t, i)` is what a weight of parameter i may be off by after t of them on cpu, and
/// `in_double` on reference.
void check_run(Device d, const Recorded& r, Rig& rig,
               const std::function<double(std::int64_t t, std::size_t i)>& allowed,
               const std::function<void(std::int64_t step)>& more = {}, double in_double = kSameInDouble) {
  for (std::int64_t step = 0; step < r.steps(); ++step) {
    std::vector<Values> gradients;
    for (const std::string& name : kNames) gradients.push_back(r.at("gradient/" + name, step));
    rig.activity = r.at("activity", step);
    rig.step(gradients);
    if (more) more(step);
    CAPTURE(step);
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      const std::string& parameter = kNames[i];
      CAPTURE(parameter);
      const Values wanted = r.at("weight/" + parameter, step), got = rig.weights(i);
      REQUIRE(got.size() == wanted.size());
      for (std::size_t k = 0; k < got.size(); ++k)
        CHECK(std::abs(got[k] - wanted[k]) <= (d == kReference ? in_double : allowed(step + 1, i)));
    }
  }
}

const double u = unit_roundoff(DType::f32);
constexpr double kLargest = 4.0;  // no weight is larger

/// t steps of Adam at this rate: each rounds the weight, and a direction whose terms add up to at most sqrt(t) of it (the
/// first moment over the root of the second, by Cauchy and Schwarz).
double adam_error(std::int64_t t, double lr) {
  return double(t) * (4.0 * u * kLargest + 16.0 * u * lr * std::sqrt(double(t)));
}

}  // namespace

TEST_CASE("reference methods: Muon is PyTorch's, step by step") {
  for (const Device d : kBoth) {
    const Recorded r("muon");
    Rig rig(d, "muon", pieces_of(r), 0.02, 0.125);
    // A direction is off by what five iterations make of rounding (test_muon.cpp), and the square root of 8/3 of that.
    double direction = 0.0;
    for (int i = 0; i < 5; ++i) direction = 3.9 * direction + sum_error(8, 10.3);
    const std::vector<Piece> pieces = pieces_of(r);
    check_run(
        d, r, rig,
        [&](std::int64_t t, std::size_t i) {
          return pieces[i].decays ? double(t) * (4.0 * u * kLargest + 0.02 * 1.64 * direction) : adam_error(t, 3e-4);
        },
        {},
        // Both keep the root of rows / columns, here up to 1.64, but evergrad in fp32, and entries of a direction are
        // below 1.21.
        kSameInDouble + double(r.steps()) * 0.02 * 1.64 * 1.21 * u);
  }
}

TEST_CASE("reference methods: TRAC around AdamW is PyTorch's, its scale too") {
  for (const Device d : kBoth) {
    const Recorded r("trac");
    Rig rig(d, "adamw+trac", pieces_of(r), 0.05, 0.0625);
    // The way is off by the rounding of the steps that it is made of. An error e of every h is, relative to their length,
    // an error of a tuner's argument x <= sqrt(t / 2), and erfi(x) grows by at most 2 x^2 + 1 times as much.
    double gradient = 0.0, squares = 0.0, scale = 0.0, relative = 0.0;
    const auto track = [&](std::int64_t step) {
      gradient = 0.0;
      for (const std::string& name : kNames)
        for (const double g : r.at("gradient/" + name, step)) gradient += std::abs(g);
      const Values wanted = r.at("scale", step);
      squares += wanted[1] * wanted[1], scale = std::max(scale, std::abs(wanted[0]));
      const double t = double(step + 1);
      relative =
          squares > 0.0 ? (t + 1.0) * std::sqrt(t) * gradient * adam_error(step + 1, 0.05) / std::sqrt(squares) : 0.0;
      const double got = rig.optimizer->scalars().at("trac.scale");
      CHECK(std::abs(got - wanted[0]) <= (d == kReference ? kSameInDouble : relative * scale + 1e-16));
    };
    check_run(
        d, r, rig,
        [&](std::int64_t t, std::size_t) {
          const double way = 0.05 * double(t) * std::sqrt(double(t));
          return scale * (relative * way + adam_error(t, 0.05)) + 4.0 * u * kLargest;
        },
        track);
    CHECK(rig.optimizer->scalars().at("trac.scale") > 0.05);  // it has left the start, where nothing could be seen
  }
}

TEST_CASE("reference methods: continual backpropagation over AdamW is PyTorch's, the units it replaces too") {
  for (const Device d : kBoth) {
    const Recorded r("cbp");
    Rig rig(d, "adamw+cbp:rate=0.1:maturity=3", pieces_of(r), 0.01, 0.0625);
    check_run(
        d, r, rig, [&](std::int64_t t, std::size_t) { return adam_error(t, 0.01); },
        [&](std::int64_t step) { CHECK(rig.optimizer->scalars().at("cbp.replaced") == r.at("replaced", step)[0]); });
  }
}

TEST_CASE("reference methods: ReDo over SGD is PyTorch's, the units it replaces too") {
  for (const Device d : kBoth) {
    const Recorded r("redo");
    Rig rig(d, "sgd+redo:tau=0.6:every=4", pieces_of(r), 0.05, 0x1p-11);
    double largest = 0.0;
    for (const std::string& name : kNames)
      for (const double g : r.file.load("redo/gradient/" + name, kCpu).to_host())
        largest = std::max(largest, std::abs(g));
    check_run(
        d, r, rig,
        [&](std::int64_t t, std::size_t) {
          // Momentum is a sum of at most 1 / (1 - 0.9) gradients with their decay.
          return double(t) * 4.0 * u * (kLargest + 0.05 * 10.0 * (largest + 0x1p-11 * kLargest));
        },
        [&](std::int64_t step) { CHECK(rig.optimizer->scalars().at("redo.replaced") == r.at("replaced", step)[0]); });
  }
}

TEST_CASE("reference methods: SAM over SGD is PyTorch's, the weights where it takes its gradient too") {
  for (const Device d : kBoth) {
    const Recorded r("sam");
    Rig rig(d, "sgd+sam:rho=0.25", pieces_of(r), 0.05, 0x1p-11);
    double largest = 0.0;
    for (const std::string& name : kNames)
      for (const double g : r.file.load("sam/slope/" + name, kCpu).to_host()) largest = std::max(largest, std::abs(g));
    std::int64_t step = 0;
    const auto allowed = [&](std::int64_t t) {
      // Momentum is a sum of at most 1 / (1 - 0.9) gradients with their decay.
      return double(t) * 4.0 * u * (kLargest + 0.05 * 10.0 * (largest + 0x1p-11 * kLargest));
    };
    rig.slope = [&](const std::vector<Values>& there) {
      std::vector<Values> slopes;
      for (std::size_t i = 0; i < kNames.size(); ++i) {
        const Values wanted = r.at("uphill/" + kNames[i], step);
        // The way uphill is shorter than 1, and rounds a few times on top of the weights' own error.
        for (std::size_t k = 0; k < wanted.size(); ++k)
          CHECK(std::abs(there[i][k] - wanted[k]) <= (d == kReference ? kSameInDouble : allowed(step + 1) + 8.0 * u));
        slopes.push_back(r.at("slope/" + kNames[i], step));
      }
      return slopes;
    };
    check_run(
        d, r, rig, [&](std::int64_t t, std::size_t) { return allowed(t); }, [&](std::int64_t) { ++step; });
  }
}

}  // namespace eg::test
