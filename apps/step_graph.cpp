// apps/step_graph.cpp - see step_graph.h.
#include "apps/step_graph.h"

#include <iostream>
#include <span>

#include "engine/collectives/watchdog.h"
#include "engine/memory.h"

namespace eg {
namespace {

/// One input of a step as the batch holds it.
struct Held {
  Tensor StepInputs::*where;
  const void* data;
  Shape shape;
  DType dtype;
};

std::vector<Held> held_by(const Batch& b, std::int64_t classes) {
  std::vector<Held> all{{&StepInputs::images, b.images.data(), {b.count, b.channels, b.size, b.size}, DType::u8}};
  if (!b.crop.empty()) all.push_back({&StepInputs::crop, b.crop.data(), {b.count, 3}, DType::i32});
  if (b.soft_labels.empty())
    all.push_back({&StepInputs::labels, b.labels.data(), {b.count}, DType::i32});
  else
    all.push_back({&StepInputs::soft_labels, b.soft_labels.data(), {b.count, classes}, DType::f32});
  return all;
}

/// The batch's own memory as a tensor of a host device; soft labels in the device's type, which may be another one.
Tensor borrowed(const Held& h, Device device) {
  if (h.dtype == DType::f32)
    return Tensor::from(std::span(static_cast<const float*>(h.data), std::size_t(h.shape.size())), h.shape,
                        device.statistic(), device);
  const std::size_t bytes = std::size_t(h.shape.size()) * size_of(h.dtype);
  return Tensor::on(std::make_shared<Storage>(device, const_cast<void*>(h.data), bytes, [] {}), 0, h.shape, h.dtype);
}

StepInputs counts_of(const Batch& batch) {
  StepInputs in;
  in.count = batch.count, in.global_count = batch.global_count, in.shared = batch.ranks > 1;
  return in;
}

/// From the batch straight into place, without waiting: the copies are in front of the step on its stream, and the
/// batch may be refilled as soon as this returns.
void upload(const StepInputs& to, const std::vector<Held>& held, Device device) {
  for (const Held& h : held) {
    const Tensor& t = to.*h.where;
    runtime(device).copy_from_host(t.data(), h.data, t.bytes(), {});
  }
}

/// Every recording keeps its inputs and outputs; more signatures than this come from a stream without any rhythm.
constexpr std::size_t kMostRecordings = 8;

std::string signature(const Batch& batch, const std::vector<Held>& held, const Tensor& class_mask) {
  std::string text = cat(batch.global_count, batch.ranks > 1 ? "s;" : ";");
  for (const Held& h : held) text += cat(h.dtype, h.shape, ";");
  return class_mask ? cat(text, "mask ", class_mask.shape()) : text;
}

}  // namespace

StepInputs inputs_of(const Batch& batch, const Tensor& class_mask, std::int64_t classes, Device device) {
  StepInputs in = counts_of(batch);
  const std::vector<Held> held = held_by(batch, classes);
  for (const Held& h : held)
    in.*h.where = device.is_host() ? borrowed(h, device) : pool(device).empty(h.shape, h.dtype);
  if (!device.is_host()) upload(in, held, device);
  in.class_mask = class_mask;
  return in;
}

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
  if (dog_) dog_->capture_begins();
  try {
    recorded = runtime(device_).capture(
        {}, [&] { body(r.inputs, r.outputs); }, &r.graph);
  } catch (const Error& e) { why = e.what(); }
  if (dog_) r.collectives = dog_->capture_ends();
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
  const std::vector<Held> held = held_by(batch, classes);
  const std::string key = signature(batch, held, class_mask);
  // Where one rank has no image its step is another one, and ranks record together or not at all.
  const bool recordable = record_ && !device_.is_host() && batch.global_count >= batch.ranks;
  if (!recordable || (!by_signature_.contains(key) && by_signature_.size() >= kMostRecordings)) {
    body(inputs_of(batch, class_mask, classes, device_), plain_);
    return plain_;
  }
  Recorded& r = by_signature_[key];
  if (++r.seen == 1) {  // memory of its own for each input, not the pool's
    r.inputs = counts_of(batch);
    for (const Held& h : held) r.inputs.*h.where = Tensor::empty(h.shape, h.dtype, device_);
    if (class_mask) r.inputs.class_mask = Tensor::empty(class_mask.shape(), class_mask.dtype(), device_);
  }
  upload(r.inputs, held, device_);
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
