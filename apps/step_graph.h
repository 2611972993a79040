// apps/step_graph.h - one training step as the device sees it: inputs at fixed addresses, outputs read at the end, and
// the recording that replays everything between (a CUDA graph, or the emulated device's list).
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "apps/step_inputs.h"

namespace eg {

class Watchdog;

struct StepOutputs {
  std::vector<Tensor> losses, corrects;  // one of each per micro-batch
};

/// Runs steps. On a host device every step is run as it is given. On others the first step of a signature (which
/// inputs, of which shapes) runs plainly and fills the memory pools, the second is recorded, and all further ones are
/// copies of inputs into place and one replay.
class StepGraph {
 public:
  using Body = std::function<void(const StepInputs&, StepOutputs&)>;
  StepGraph(Device device, bool record) : device_(device), record_(record), ahead_(device) {}
  ~StepGraph();
  StepGraph(const StepGraph&) = delete;
  StepGraph& operator=(const StepGraph&) = delete;

  /// `body` only enqueues work that is a function of the inputs and of device memory. The outputs are valid until the
  /// next run. Says once on standard error why a device that should record does not.
  const StepOutputs& run(const Batch& batch, const Tensor& class_mask, std::int64_t classes, const Body& body);
  /// Batches like this one will be announced by upload_ahead().
  void expect_ahead(const Batch& batch, std::int64_t classes) { ahead_.reserve(batch, classes); }
  /// Begins to copy the next batch to the device, beside the step that runs.
  void upload_ahead(const Batch& next, std::int64_t classes) { ahead_.begin(next, classes); }
  /// How many batches were on the device when their step began.
  std::int64_t uploaded_ahead() const { return ahead_.taken(); }
  std::int64_t replays() const { return replays_; }
  /// What was recorded is no longer what a step does: every signature begins anew. The outputs of the last run are gone.
  void forget();
  /// Of several ranks: whether this happened on any of them. All record a step, or none does. Empty: this process is alone.
  void agreed_by(std::function<bool(bool failed)> agree) { agree_ = std::move(agree); }
  /// Hears of the collectives that recordings hold. Null: nobody.
  void watched_by(Watchdog* dog) { dog_ = dog; }

 private:
  struct Recorded {
    StepInputs inputs;
    StepOutputs outputs;
    Graph graph;
    std::int64_t seen = 0;
    bool recorded = false;
    std::uint64_t collectives = 0;
  };
  void record(Recorded& r, const Body& body);

  Device device_;
  bool record_;
  UploadAhead ahead_;
  Watchdog* dog_ = nullptr;
  std::function<bool(bool)> agree_;
  std::int64_t replays_ = 0;
  std::map<std::string, Recorded> by_signature_;
  StepOutputs plain_;
};

}  // namespace eg
