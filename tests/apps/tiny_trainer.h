// tests/apps/tiny_trainer.h - a network of two blocks and 32 images: small enough to be trained in any test.
#pragma once
#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "apps/trainer.h"
#include "engine/parallel.h"

namespace eg::test {

constexpr int kClasses = 4;

inline TrainerConfig tiny(const std::string& method = "adamw", Device device = kCpu, int depth = 2) {
  TrainerConfig c;
  c.vit = vit_config("vit-ti", 8, 4, 16, depth, 2);
  c.vit.classes = kClasses;
  c.vit.precision = device == kReference ? DType::f64 : DType::f32;
  c.device = device;
  c.method = parse_method(method);
  c.mean = {0.5, 0.5, 0.5}, c.stddev = {0.25, 0.25, 0.25};
  return c;
}

/// 32 images of 4 classes in batches of 8, in the same order for everyone who asks.
struct Images {
  std::shared_ptr<const Dataset> data = make_procedural({.classes = kClasses, .train_per_class = 8});
  Task task = whole_dataset(*data, kClasses);
  Loader loader(Split split = Split::train) const {
    LoaderConfig c;
    c.format = {3, 8};
    c.batch = 8, c.epochs = 1, c.workers = 0, c.shuffle = split == Split::train;
    return Loader(data, split == Split::train ? task.train : task.test, task.transform, c);
  }
};

inline void train_one_epoch(Trainer& trainer, const Images& images, const Tensor& mask = {}) {
  Loader loader = images.loader();
  while (const Batch* batch = loader.next()) trainer.step(*batch, 1.0, mask);
}

/// The batch that the loader's workers are making, waited for.
inline const Batch* ahead_of(Loader& loader) {
  const Batch* ahead = loader.ahead();
  for (int i = 0; i < 2000 && !ahead; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1)), ahead = loader.ahead();
  return ahead;
}

/// The bytes of everything that a checkpoint holds.
inline std::vector<std::string> bytes_of(Trainer& trainer) {
  std::vector<std::string> all;
  for (const NamedTensor& t : trainer.state()) {
    const Tensor host = t.tensor.to(kCpu);
    all.push_back(t.name + ' ' + std::string(static_cast<const char*>(host.data()), host.bytes()));
  }
  return all;
}

/// One thread: steps of microseconds on a busy machine would otherwise wait for each other.
struct OneThread {
  int before = num_threads();
  OneThread() { set_num_threads(1); }
  ~OneThread() { set_num_threads(before); }
};

inline const Param& param(const Trainer& trainer, const std::string& name) {
  for (const Param* p : trainer.params())
    if (p->name == name) return *p;
  FAIL(name);
  return *trainer.params()[0];
}

}  // namespace eg::test
