// tests/apps/ranks_training.h - a training of five epochs on some ranks of one process, and all that it leaves.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "apps/distributed/launch.h"
#include "apps/distributed/rank_files.h"
#include "engine/collectives/loopback.h"
#include "tests/apps/tiny_trainer.h"

namespace eg::test {

constexpr std::int64_t kEpochs = 5;  // of 10 batches each, the last of them not full

/// In builds with sanitizers one method stands for all.
inline std::vector<const char*> some(std::vector<const char*> methods) {
  const char* const brief = std::getenv("EVERGRAD_SHORT_TESTS");
  if (brief && *brief) methods.resize(1);
  return methods;
}

inline TrainerConfig three_blocks(const std::string& method, Device device) {
  TrainerConfig c = tiny(method, device, 3);
  c.vit.drop_path = 0.1;
  return c;
}

struct MoreImages {
  std::shared_ptr<const Dataset> data = make_procedural({.classes = kClasses, .train_per_class = 19});
  Task task = whole_dataset(*data, kClasses);
  LoaderConfig config(bool training) const {
    LoaderConfig c;
    c.format = {3, 8};
    c.batch = 8, c.epochs = training ? kEpochs : 1, c.workers = 0, c.shuffle = training;
    if (training) c.augment = parse_augment("crop-flip", 8);
    return c;
  }
};

struct Trace {
  std::vector<double> losses, accuracies;
  std::string weights;                                               // bytes, at the end
  std::string state;                                                 // bytes of all that a checkpoint holds
  std::vector<std::pair<std::string, std::vector<double>>> tensors;  // the same as numbers
  std::size_t state_bytes = 0;
  std::int64_t sent = 0;  // bytes, in all steps
};

inline std::string bytes_of(const Tensor& t) { return {static_cast<const char*>(t.data()), t.bytes()}; }

/// What all ranks have of a divided tensor together, on each of them; other tensors as they are.
inline Tensor whole_of(const StateTensor& kept, Collectives& ranks) {
  if (!kept.part) return kept.tensor.to(kCpu);
  const Tensor own = compact_on_host(kept.tensor, *kept.part);
  const std::size_t width = size_of(own.dtype());
  std::string mine;
  for (std::size_t next = 0; const TensorPiece& p : kept.part->pieces) {
    mine += cat(p.begin, ' ', p.size, '\n') + bytes_of(own).substr(next, std::size_t(p.size) * width);
    next += std::size_t(p.size) * width;
  }
  Tensor whole = Tensor::zeros(kept.part->whole, own.dtype(), kCpu);
  std::vector<int> covered(std::size_t(whole.size()), 0);
  for (const std::string& theirs : ranks.all_gather_bytes(mine))
    for (std::size_t at = 0; at < theirs.size();) {
      std::size_t end = 0;
      const std::size_t begin = std::stoul(theirs.substr(at, 24), &end);
      const std::size_t size = std::stoul(theirs.substr(at + end + 1, 24));
      at = theirs.find('\n', at) + 1;
      std::memcpy(static_cast<char*>(whole.data()) + begin * width, theirs.data() + at, size * width);
      for (std::size_t i = begin; i < begin + size; ++i) ++covered[i];
      at += size * width;
    }
  CHECK(std::all_of(covered.begin(), covered.end(), [](int n) { return n == 1; }));
  return whole;
}

/// What a checkpoint holds, but for the step record, which has this rank's first image.
inline std::vector<NamedTensor> whole_state(Trainer& trainer) {
  std::vector<NamedTensor> all;
  for (const StateTensor& t : trainer.state())
    if (t.name != "step_record") all.push_back({t.name, whole_of(t, trainer.ranks())});
  return all;
}

/// One rank's view of a training; `disturb` is a share by which its initial weights are off.
inline Trace train(TrainerConfig config, const MoreImages& images, const std::shared_ptr<Collectives>& ranks,
                   double disturb = 0.0) {
  config.ranks = ranks;
  Trainer trainer(config);
  if (disturb > 0.0) {
    std::vector<double> w = trainer.arena().master.to_host();
    const Key k = key(1, "drift", "weights");
    for (std::size_t i = 0; i < w.size(); ++i) w[i] *= 1.0 + disturb * k.normal(i);
    const Tensor& master = trainer.arena().master;
    master.copy_from(Tensor::from(w, master.shape(), master.dtype(), config.device));
  }
  LoaderConfig training = images.config(true), test = images.config(false);
  share_batches(training, *ranks), share_batches(test, *ranks);
  Loader loader(images.data, images.task.train, images.task.transform, training);
  Trace trace;
  for (std::int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    if (epoch % 2 == 0) {
      Loader once(images.data, images.task.train, images.task.transform, test);
      trainer.begin_task(epoch / 2, epoch ? "fresh" : "keep", true, [&] { return once.next(); });
    }
    while (const Batch* batch = loader.next()) trace.losses.push_back(trainer.step(*batch, 1.0).loss);
    Loader tested(images.data, images.task.test, images.task.transform, test);
    trace.accuracies.push_back(trainer.evaluate(tested).accuracy);
  }
  trace.sent = ranks->bytes_sent();
  const Tensor master = trainer.arena().master.to(kCpu);
  trace.weights.assign(static_cast<const char*>(master.data()), master.bytes());
  trace.state_bytes = trainer.optimizer().state_bytes();
  for (const NamedTensor& t : whole_state(trainer)) {
    trace.state += bytes_of(t.tensor);
    trace.tensors.emplace_back(t.name, t.tensor.to_host());
  }
  return trace;
}

inline std::string state_bytes_of(Trainer& trainer) {
  std::string all;
  for (const NamedTensor& t : whole_state(trainer)) all += bytes_of(t.tensor);
  return all;
}

inline std::vector<Trace> train_on(int size, const TrainerConfig& config, const MoreImages& images) {
  std::vector<Trace> all(static_cast<std::size_t>(size));
  run_loopback(size, [&](const std::shared_ptr<Collectives>& ranks) {
    all[std::size_t(ranks->rank())] = train(config, images, ranks);
  });
  return all;
}

}  // namespace eg::test
