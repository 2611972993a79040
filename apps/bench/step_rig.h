// apps/bench/step_rig.h - a trainer with a loader, as `train` has them, to time whole steps of.
#pragma once
#include <memory>
#include <string>

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
  double seconds = 0.3;
  bool kernels_only = false, step_only = false, weak_scaling = false;
  // The scaling model: files of --trace, or typed figures; negative: not given.
  bool scaling = false;
  std::vector<std::string> scaling_files;
  std::vector<int> scaling_ranks{8, 64, 1024};
  int node_ranks = 8;
  double step_ms = -1.0, backward_ms = -1.0;
  double node_gb_per_s = -1.0, node_latency_us = -1.0, network_gb_per_s = -1.0, network_latency_us = -1.0;
};

/// --batch images for every one of `ranks` (null: one alone), the same number of threads, not augmented.
class StepRig {
 public:
  StepRig(const BenchOptions& o, const ResolvedMachine& machine, const std::string& method,
          std::shared_ptr<Collectives> ranks = nullptr, StepListener* listener = nullptr);
  /// The next batch, of the next epoch after the last one. Throws Error{usage} when the data set is too small for it.
  const Batch& next();
  void step() { trainer_->step(next(), 1.0); }
  /// Past ARROW's window (8 steps of the base optimizer), the pool's first allocations and the loader's cache.
  void warm_up() {
    for (int i = 0; i < 10; ++i) step();
  }
  Trainer& trainer() { return *trainer_; }
  const Loader& loader() const { return *loader_; }
  const VitConfig& vit() const { return vit_; }

 private:
  std::int64_t images_;
  VitConfig vit_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<Loader> loader_;
};

}  // namespace eg
