// apps/step_graph.cpp - see step_graph.h.
#include "apps/step_graph.h"

#include <iostream>

#include "engine/collectives/watchdog.h"

namespace eg {
namespace {

/// Every recording keeps its inputs and outputs; more signatures than this come from a stream without any rhythm.
constexpr std::size_t kMostRecordings = 8;

std::string signature(const Batch& batch, const std::vector<HeldInput>& held, const Tensor& class_mask) {
  std::string text = cat(batch.global_count, batch.ranks > 1 ? "s;" : ";");
  for (const HeldInput& h : held) text += cat(h.dtype, h.shape, ";");
  return class_mask ? cat(text, "mask ", class_mask.shape()) : text;
}

}  // namespace

StepGraph::~StepGraph() { forget(); }

void StepGraph::forget() {
  for (auto& [signature, r] : by_signature_)
    if (r.graph.handle) runtime(device_).destroy_graph(r.graph);
  by_signature_.clear();
}

void StepGraph::record(Recorded& r, const Body& body) {
  r.outputs = {};  // their memory belongs to the step that is recorded now
  bool recorded = false;
  std::string why = "the device does not record";
  bool fault = false;
  if (dog_) dog_->capture_begins();
  try {
    recorded = runtime(device_).capture(
        {}, [&] { body(r.inputs, r.outputs); }, &r.graph);
  } catch (const Error& e) {
    why = e.what();
    fault = e.kind == Kind::internal;
  }
  if (dog_) r.collectives = dog_->capture_ends();
  // A fault of work from before, which recording waited for, is no reason to go on without one. After it a GPU refuses all.
  check(!fault, Kind::internal, [&] { return why; });
  if (!recorded) runtime(device_).synchronize({});
  if (agree_ && agree_(!recorded) && recorded) {
    runtime(device_).destroy_graph(r.graph);
    r.graph = {}, recorded = false, why = "another rank could not record it";
  }
  if (recorded) {
    r.recorded = true;
    return;
  }
  r.outputs = {};
  record_ = false;
  std::cerr << "evergrad: the training step is not recorded but launched kernel by kernel: " << why << '\n';
}

const StepOutputs& StepGraph::run(const Batch& batch, const Tensor& class_mask, std::int64_t classes,
                                  const Body& body) {
  plain_ = {};  // the pool's blocks, which a recording may need
  const std::vector<HeldInput> held = held_by(batch, classes);
  const std::string key = signature(batch, held, class_mask);
  // Where one rank has no image its step is another one, and ranks record together or not at all.
  const bool recordable = record_ && !device_.is_host() && batch.global_count >= batch.ranks;
  if (!recordable || (!by_signature_.contains(key) && by_signature_.size() >= kMostRecordings)) {
    body(inputs_of(batch, class_mask, classes, device_, &ahead_), plain_);
    return plain_;
  }
  Recorded& r = by_signature_[key];
  if (++r.seen == 1) {  // memory of its own for each input, not the pool's
    r.inputs = counts_of(batch);
    for (const HeldInput& h : held) r.inputs.*h.where = Tensor::empty(h.shape, h.dtype, device_);
    if (class_mask) r.inputs.class_mask = Tensor::empty(class_mask.shape(), class_mask.dtype(), device_);
  }
  if (!ahead_.take(batch, held, r.inputs)) upload(r.inputs, held, device_);
  if (class_mask) runtime(device_).copy_within(r.inputs.class_mask.data(), class_mask.data(), class_mask.bytes(), {});
  if (r.seen == 2) record(r, body);
  if (r.recorded) {
    if (dog_) dog_->replayed(r.collectives);
    runtime(device_).replay(r.graph, {});
    ++replays_;
    return r.outputs;
  }
  body(r.inputs, plain_);
  return plain_;
}

}  // namespace eg
