// tests/devices/test_step_memory.cpp - a training loop that has found its memory asks the device for no more; a step
// that cannot be recorded is launched kernel by kernel and says why.
#include <algorithm>
#include <iostream>
#include <sstream>

#include "engine/allocations.h"
#include "tests/apps/tiny_trainer.h"
#include "tests/devices/devices.h"

namespace eg::test {
namespace {

/// 32 images in batches of 8, cropped; with soft labels instead of labels where asked.
Loader loader_of(const Images& images, bool soft) {
  LoaderConfig c;
  c.format = {3, 8};
  c.batch = 8, c.epochs = 1, c.workers = 1;
  c.augment = parse_augment("crop-flip", 8);
  if (soft) c.augment.mixup = 0.4, c.soft_classes = kClasses;
  return Loader(images.data, images.task.train, images.task.transform, c);
}

/// Of each step: how often memory had been asked for when it was over.
std::vector<std::int64_t> allocations_of(Trainer& trainer, const Images& images, bool soft, const Tensor& mask) {
  std::vector<std::int64_t> counts;
  for (int epoch = 0; epoch < 3; ++epoch) {
    Loader loader = loader_of(images, soft);
    while (const Batch* batch = loader.next()) {
      trainer.step(*batch, 1.0, mask, [&] { return loader.ahead(); });
      counts.push_back(device_allocations());
    }
  }
  return counts;
}

/// What is written to standard error while it lives.
class Heard {
 public:
  Heard() : before_(std::cerr.rdbuf(text_.rdbuf())) {}
  ~Heard() { std::cerr.rdbuf(before_); }
  Heard(const Heard&) = delete;
  Heard& operator=(const Heard&) = delete;
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::streambuf* before_;
};

/// Asks for device memory in the middle of every step.
struct Allocating final : StepListener {
  Device device;
  std::vector<Tensor> kept;
  void begin(StepPart part, Stream) override {
    if (part == StepPart::update) kept.push_back(Tensor::empty({64}, DType::f32, device));
  }
  void end(StepPart, int, Stream) override {}
};

struct Run {
  std::vector<double> losses;
  std::int64_t replays = 0;
  std::string heard;
};
Run run(TrainerConfig config, StepListener* listener, bool record) {
  config.listener = listener, config.record_steps = record;
  const Heard heard;
  Trainer trainer(config);
  const Images images;
  Run r;
  for (int epoch = 0; epoch < 2; ++epoch) {
    Loader loader = images.loader();
    while (const Batch* batch = loader.next()) r.losses.push_back(trainer.step(*batch, 1.0).loss);
  }
  r.replays = trainer.replays(), r.heard = heard.text();
  return r;
}

}  // namespace

TEST_CASE("step memory: from the third step on the device is asked for no memory, recorded or not") {
  const Images images;
  for (const Device device : devices_under_test()) {
    if (device.is_host()) continue;
    const Tensor mask = Tensor::from(std::vector<std::uint8_t>(kClasses, 1), {kClasses}, device);
    for (const char* method : {"sgd", "adamw", "arrow:window=3"})
      for (const bool record : {true, false})
        for (const int form : {0, 1, 2}) {  // labels; with a class mask and passes; soft labels
          if (form > 0 && method != std::string_view("adamw")) continue;  // what a batch holds, once
          CAPTURE(cat(device, ' ', method, record ? " recorded" : " plain", " form ", form));
          TrainerConfig config = tiny(method, device);
          config.record_steps = record, config.accumulate = form == 1 ? 2 : 1;
          Trainer trainer(config);
          const std::vector<std::int64_t> counts =
              allocations_of(trainer, images, form == 2, form == 1 ? mask : Tensor{});
          REQUIRE(counts.size() == 12);
          CHECK(trainer.replays() == (record ? 11 : 0));
          for (std::size_t i = 2; i < counts.size(); ++i) CHECK_MESSAGE(counts[i] == counts[1], i);
          // Between epochs the network is evaluated; the first time may find its memory.
          std::vector<std::int64_t> after;
          for (int i = 0; i < 3; ++i) {
            Loader test = images.loader(Split::test);
            trainer.evaluate(test), after.push_back(device_allocations());
          }
          CHECK(after[1] == after[0]);
          CHECK(after[2] == after[0]);
        }
  }
}

TEST_CASE("step memory: the counter sees what a step asks for") {
  for (const Device device : devices_under_test()) {
    if (device.is_host()) continue;
    const std::int64_t before = device_allocations();
    Allocating listener;
    listener.device = device;
    run(tiny("sgd", device), &listener, false);
    CHECK(device_allocations() >= before + 8);
  }
}

TEST_CASE("step memory: a step that allocates is not recorded, says why in one line, and gives the same losses") {
  for (const Device device : devices_under_test()) {
    if (device.is_host()) continue;
    for (const char* method : {"sgd", "adamw", "arrow:window=3"}) {
      CAPTURE(cat(device, ' ', method));
      const TrainerConfig config = tiny(method, device);
      Allocating listener;
      listener.device = device;
      const Run refused = run(config, &listener, true);
      CHECK(refused.replays == 0);
      CHECK(std::count(refused.heard.begin(), refused.heard.end(), '\n') == 1);
      for (const char* part : {"evergrad: the training step is not recorded but launched kernel by kernel: ",
                               "an allocation of 256 bytes while a step is recorded", "device's pool"})
        CHECK_MESSAGE(refused.heard.find(part) != std::string::npos, refused.heard);
      const Run plain = run(config, &listener, false), recorded = run(config, nullptr, true);
      CHECK(plain.heard == "");
      CHECK(recorded.heard == "");
      CHECK(recorded.replays == 7);
      CHECK(refused.losses == plain.losses);
      CHECK(recorded.losses == plain.losses);
    }
  }
}

}  // namespace eg::test
