// apps/bench/step_rig.h - a trainer as `train` has it and batches that lie ready, to time whole steps of.
//
// The batches are made before anything is timed, because computing procedural images can take longer than a step on them: at
// 224 pixels a core makes about a hundred a second, and a GPU trains on thousands. Their copy to the device is part of the
// step. How fast a loader is, is a figure of its own: loader_images_per_second().
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/run/rank_options.h"
#include "apps/setup.h"
#include "apps/trainer.h"

namespace eg {

struct BenchOptions {
  ModelOptions model;
  MachineOptions machine;
  RankOptions ranks;
  std::string filter, json, compare, ladder, methods = "adamw,arrow", trace;
  int batch = 64, classes = 100, steps = 12, rounds = 5;
  double seconds = 0.3, clip_norm = 1.0;
  bool kernels_only = false, step_only = false, weak_scaling = false;
  // The scaling model: files of --trace, or typed figures; negative: not given.
  bool scaling = false;
  std::vector<std::string> scaling_files;
  std::vector<int> scaling_ranks{8, 64, 1024};
  int node_ranks = 8;
  double step_ms = -1.0, backward_ms = -1.0;
  double node_gb_per_s = -1.0, node_latency_us = -1.0, network_gb_per_s = -1.0, network_latency_us = -1.0;
};

/// --batch images for every one of `ranks` (null: one alone), not augmented.
class StepRig {
 public:
  StepRig(const BenchOptions& o, const ResolvedMachine& machine, const std::string& method,
          std::shared_ptr<Collectives> ranks = nullptr, StepListener* listener = nullptr);
  /// The prepared batches, one after the other and around again.
  const Batch& next() { return batches_[at_++ % batches_.size()]; }
  void step() {
    const Batch& batch = next();
    trainer_->step(batch, 1.0, {}, [this] { return &batches_[at_ % batches_.size()]; });
  }
  /// Past ARROW's window (8 steps of the base optimizer) and the pool's first allocations.
  void warm_up() {
    for (int i = 0; i < 10; ++i) step();
  }
  Trainer& trainer() { return *trainer_; }
  /// This rank's images over the time that loader_workers() threads needed to make them.
  double loader_images_per_second() const { return loader_rate_; }
  int loader_workers() const { return loader_workers_; }
  const VitConfig& vit() const { return vit_; }

 private:
  void prepare(const std::shared_ptr<const Dataset>& data, const Task& task, const LoaderConfig& config);

  std::int64_t images_;  // of a step of all ranks
  VitConfig vit_;
  std::unique_ptr<Trainer> trainer_;
  std::vector<Batch> batches_;
  std::size_t at_ = 0;
  double loader_rate_ = 0.0;
  int loader_workers_ = 0;
};

}  // namespace eg
