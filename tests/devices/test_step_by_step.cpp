// tests/devices/test_step_by_step.cpp - training on another device is the same training: losses of a continual run on
// real images, step for step, against the cpu.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "apps/setup.h"
#include "apps/trainer.h"
#include "data/stream.h"
#include "engine/rng.h"
#include "tests/devices/devices.h"
#include "tests/tolerance.h"

namespace eg::test {
namespace {

constexpr std::int64_t kTasks = 2, kStepsPerTask = 25;

/// CIFAR-100 where EVERGRAD_DATA has it, else Debian's Fashion-MNIST; nothing where neither is.
std::shared_ptr<const Dataset> real_images() {
  const char* const folder = std::getenv("EVERGRAD_DATA");
  if (folder && std::filesystem::exists(std::filesystem::path(folder) / "cifar-100-binary"))
    return open_dataset("cifar100", folder, {});
  if (std::filesystem::exists("/usr/share/datasets/fashion-mnist")) return open_dataset("idx", "", {});
  return nullptr;
}

struct Setup {
  std::shared_ptr<const Dataset> data;
  std::shared_ptr<const TaskStream> stream;
  ImageFormat format;
};

Setup make_setup(std::shared_ptr<const Dataset> data) {
  StreamConfig c;
  c.protocol = Protocol::class_subset;
  c.tasks = int(kTasks), c.classes_per_task = 4, c.train_limit = 8 * kStepsPerTask, c.test_limit = 40;
  return {data, make_stream(data, c), {3, 16}};
}

TrainerConfig config_of(const Setup& s, const std::string& method, Device device, DType precision) {
  TrainerConfig c;
  c.vit = vit_config("vit-ti", 16, 4, 32, 2, 1);
  c.vit.classes = s.stream->head_classes();
  c.vit.drop_path = 0.1;
  c.vit.precision = device == kReference ? DType::f64 : precision;
  c.device = device;
  c.method = parse_method(method);
  c.mean = {0.5, 0.5, 0.5}, c.stddev = {0.25, 0.25, 0.25};
  return c;
}

struct Trace {
  std::vector<double> losses, accuracies;
  std::int64_t replays = 0;
};

/// A continual run: crop and flip, a fresh head at the second task. `seed` disturbs the initial weights by that share;
/// `factor` the learning rate.
Trace run(const Setup& s, const TrainerConfig& config, double seed = 0.0, std::uint32_t draw = 0, double factor = 1.0) {
  Trainer trainer(config);
  if (seed > 0.0) {
    std::vector<double> w = trainer.arena().master.to_host();
    const Key k = key(1, "drift", "weights", draw);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] *= 1.0 + seed * k.normal(i);
    trainer.arena().master.copy_from(
        Tensor::from(w, trainer.arena().master.shape(), trainer.arena().master.dtype(), config.device));
    trainer.arena().refresh_work();
  }
  Trace trace;
  for (std::int64_t t = 0; t < kTasks; ++t) {
    const Task task = s.stream->task(t);
    LoaderConfig lc;
    lc.format = s.format, lc.batch = 8, lc.epochs = 1, lc.workers = 0;
    Loader once(s.data, task.train, task.transform, lc);
    trainer.begin_task(t, t == 0 ? "keep" : "fresh", true, [&] { return once.next(); });
    lc.shuffle = true;
    lc.augment = parse_augment("crop-flip", 16);
    Loader train(s.data, task.train, task.transform, lc);
    while (const Batch* batch = train.next()) trace.losses.push_back(trainer.step(*batch, factor).loss);
    lc.shuffle = false, lc.augment = {};
    Loader test(s.data, task.test, task.transform, lc);
    trace.accuracies.push_back(trainer.evaluate(test).accuracy);
  }
  trace.replays = trainer.replays();
  return trace;
}

/// Largest error as a share of what drift_bound allows, over all steps; `disturbed` are runs from disturbed weights.
double worst_share(const Trace& ours, const Trace& cpu, const std::vector<Trace>& disturbed) {
  double largest = 0.0, worst = 0.0;
  for (std::size_t t = 0; t < cpu.losses.size(); ++t) {
    for (const Trace& d : disturbed) largest = std::max(largest, std::abs(d.losses[t] - cpu.losses[t]));
    const double error = std::abs(ours.losses[t] - cpu.losses[t]), bound = drift_bound(largest, cpu.losses[t]);
    worst = error <= bound ? std::max(worst, error / bound) : HUGE_VAL;
  }
  return worst;
}

}  // namespace

TEST_CASE("devices: 50 steps of a continual run on real images give the cpu's losses, and the same bits every time") {
  const auto data = real_images();
  if (!data) {
    MESSAGE("SKIPPED: needs EVERGRAD_DATA with cifar-100-binary/, or Debian's package dataset-fashion-mnist");
    return;
  }
  Setup s = make_setup(data);
  // The first three in every build; the others, whose kernels are many and small, once and without sanitizers.
  std::vector<std::string> methods = {"sgd", "adamw", "arrow:window=4"};
  const std::size_t thorough = methods.size();
  if (const char* brief = std::getenv("EVERGRAD_SHORT_TESTS"); brief == nullptr || *brief == '\0')
    methods.insert(methods.end(),
                   {"muon", "spectral:strength=0.01+parseval+dash+fire", "l2p:pool=5:length=3:select=2"});
  for (std::size_t m = 0; m < methods.size(); ++m) {
    const std::string& method = methods[m];
    const std::string shown = method;
    CAPTURE(shown);
    const Trace cpu = run(s, config_of(s, method, kCpu, DType::f32));
    REQUIRE(cpu.losses.size() == std::size_t(kTasks * kStepsPerTask));
    std::vector<Trace> disturbed;
    for (std::uint32_t draw = 0; draw < 2; ++draw)
      disturbed.push_back(run(s, config_of(s, method, kCpu, DType::f32), kDriftSeed, draw));
    // The bound has teeth: a learning rate that is off by a twentieth does not pass.
    CHECK(worst_share(run(s, config_of(s, method, kCpu, DType::f32), 0.0, 0, 1.05), cpu, disturbed) > 1.0);
    for (const Device device : devices_under_test()) {
      CAPTURE(to_string(device));
      const Trace ours = run(s, config_of(s, method, device, DType::f32));
      CHECK(worst_share(ours, cpu, disturbed) <= 1.0);
      for (std::size_t t = 0; t < ours.accuracies.size(); ++t)
        CHECK(std::abs(ours.accuracies[t] - cpu.accuracies[t]) <= 0.03);
      if (device.is_host() || m >= thorough) continue;
      CHECK(ours.replays >= kTasks * kStepsPerTask - 4);  // one signature: all but its first step, twice at most
      CHECK(run(s, config_of(s, method, device, DType::f32)).losses == ours.losses);
      TrainerConfig plain = config_of(s, method, device, DType::f32);
      plain.record_steps = false;
      CHECK(run(s, plain).losses == ours.losses);
    }
  }
}

TEST_CASE("devices: bf16 training learns the same task as far as fp32 does, and repeats bit for bit") {
  const auto data = real_images();
  if (!data) {
    MESSAGE("SKIPPED: needs EVERGRAD_DATA with cifar-100-binary/, or Debian's package dataset-fashion-mnist");
    return;
  }
  Setup s = make_setup(data);
  const auto mean_of_last = [](const Trace& t) {
    double sum = 0.0;
    for (std::size_t i = t.losses.size() - 10; i < t.losses.size(); ++i) sum += t.losses[i] / 10;
    return sum;
  };
  const double exact = mean_of_last(run(s, config_of(s, "adamw", kCpu, DType::f32)));
  for (const Device device : devices_under_test()) {
    if (device.is_host()) continue;
    CAPTURE(to_string(device));
    const Trace ours = run(s, config_of(s, "adamw", device, DType::bf16));
    CHECK(mean_of_last(ours) == doctest::Approx(exact).epsilon(0.03));  // 2^-8 in every activation, over ten roundings
    CHECK(run(s, config_of(s, "adamw", device, DType::bf16)).losses == ours.losses);
  }
}

}  // namespace eg::test
