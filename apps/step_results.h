// apps/step_results.h - what the host learns of a step, in one copy and one wait.
#pragma once
#include <cstddef>
#include <vector>

#include "apps/step_graph.h"
#include "engine/records.h"

namespace eg {

/// Every copy to the host waits for the device. So the losses and counts of all micro-batches and the step record are
/// put side by side in device memory first, which waits for nothing, and then come together.
class StepResults {
 public:
  explicit StepResults(Device device) : device_(device) {}
  /// Waits for the step that wrote them.
  void read(const StepOutputs& outputs, const Tensor& record);
  double loss() const { return loss_; }  // sums over the micro-batches
  double correct() const { return correct_; }
  const StepRecord& record() const { return record_; }

 private:
  Device device_;
  Tensor together_;  // u8, on the device
  std::vector<std::byte> host_;
  double loss_ = 0.0, correct_ = 0.0;
  StepRecord record_;
};

}  // namespace eg
