// apps/bench/step_rig.cpp - see step_rig.h.
#include "apps/bench/step_rig.h"

#include <chrono>
#include <cstring>

#include "apps/distributed/launch.h"
#include "engine/error.h"
#include "engine/parallel.h"

namespace eg {
namespace {

constexpr int kBatches = 3;  // more than one, so that no cache keeps a step's images for the next

/// A batch of its own: the loader's is valid until the next one only.
Batch copy_of(const Batch& b) {
  Batch c;
  c.count = b.count, c.global_count = b.global_count, c.ranks = b.ranks;
  c.channels = b.channels, c.size = b.size;
  c.epoch = b.epoch, c.index = b.index, c.first_sample = b.first_sample, c.serial = b.serial;
  c.images.resize(b.images.size());
  if (b.images.size() > 0) std::memcpy(c.images.data(), b.images.data(), b.images.size());
  c.labels = b.labels, c.soft_labels = b.soft_labels, c.crop = b.crop, c.positions = b.positions;
  return c;
}

}  // namespace

StepRig::StepRig(const BenchOptions& o, const ResolvedMachine& machine, const std::string& method,
                 std::shared_ptr<Collectives> ranks, StepListener* listener)
    : images_(std::int64_t(o.batch) * (ranks ? ranks->size() : 1)),
      vit_(vit_of(o.model, o.classes, machine.activation)) {
  DataOptions data_options;
  data_options.augment = "none";
  const std::shared_ptr<const Dataset> data = open_data(data_options);
  const Task task = whole_dataset(*data, o.classes, images_ * kBatches);
  TrainerConfig c;
  c.vit = vit_;
  c.device = machine.device, c.zero = machine.zero;
  c.record_steps = machine.record_steps;
  c.method = parse_method(method), c.clip_norm = o.clip_norm;
  const ChannelStats s = channel_stats(*data, task.train, {o.model.channels, o.model.image_size});
  c.mean = s.mean, c.stddev = s.stddev;
  c.ranks = ranks, c.listener = listener;
  trainer_ = std::make_unique<Trainer>(c);
  LoaderConfig lc = base_loader(data_options, o.model, images_, o.classes, true);
  if (ranks) share_batches(lc, *ranks);
  lc.workers = num_threads(), lc.prefetch = kBatches;
  prepare(data, task, lc);
}

void StepRig::prepare(const std::shared_ptr<const Dataset>& data, const Task& task, const LoaderConfig& config) {
  const auto start = std::chrono::steady_clock::now();
  Loader loader(data, task.train, task.transform, config);
  std::int64_t made = 0;
  while (const Batch* b = loader.next()) {  // one epoch
    if (b->global_count != images_) break;  // its last, partial batch
    batches_.push_back(copy_of(*b));
    made += b->count;
    if (batches_.size() == kBatches) break;
  }
  check(!batches_.empty(), Kind::usage, [&] {
    return cat("bench: a step of all ranks needs ", images_, " images, and the data set gave ", loader.samples(),
               "; use a smaller --batch, or more --classes");
  });
  loader_rate_ = double(made) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  loader_workers_ = config.workers;
}

}  // namespace eg
