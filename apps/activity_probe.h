// apps/activity_probe.h - a few images that stay the same through a task, and how active hidden units are on them: what
// adaptive replay asks for.
#pragma once
#include <functional>
#include <string>

#include "data/loader.h"
#include "engine/collectives/collectives.h"
#include "layers/vit.h"

namespace eg {

class ActivityProbe {
 public:
  /// Room for `images` images of the model's format.
  ActivityProbe(const VitConfig& config, std::int64_t images, Device device);
  /// A new task begins: the images are those of its first batch.
  void forget() { count_.set_zero(); }
  /// Takes the batch's first images, not augmented further, when there are none yet. Where ranks share the batch they exchange
  /// its images, so that all have the same ones: all call it together.
  void offer(const Batch& batch, Collectives& ranks);
  /// The share of positive entries among the pre-activations of all MLPs (fau_sign of methods.md D.2). Changes nothing.
  double active_share(Vit& model, VitContext context) const;
  /// What a bitwise resume needs, by name.
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit);

 private:
  Tensor images_;  // u8 [n, C, S, S] on the host
  Tensor count_;   // f64 [1] on the host: images that are there
  Device device_;
};

}  // namespace eg
