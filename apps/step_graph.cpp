// apps/step_graph.cpp - see step_graph.h.
#include "apps/step_graph.h"

#include <iostream>

#include "engine/collectives/watchdog.h"

namespace eg {
namespace {

template <class T>
Tensor borrow(const T* data, const Shape& shape, Device device) {
  const std::size_t bytes = std::size_t(shape.size()) * sizeof(T);
  const Device owner = device.is_host() ? device : kCpu;
  auto storage = std::make_shared<Storage>(owner, const_cast<T*>(data), bytes, [] {});
  return Tensor::on(std::move(storage), 0, shape, dtype_of<T>).to(device);
}

/// Every recording keeps its inputs and outputs; more signatures than this come from a stream without any rhythm.
constexpr std::size_t kMostRecordings = 8;

std::string signature(const StepInputs& in) {
  std::string text = cat(in.global_count, in.shared ? "s;" : ";");
  for (const Tensor* t : {&in.images, &in.crop, &in.labels, &in.soft_labels, &in.class_mask})
    text += *t ? cat(t->dtype(), t->shape(), ";") : std::string("-;");
  return text;
}

void copy_into(StepInputs& to, const StepInputs& from) {
  const auto copy = [](Tensor& a, const Tensor& b) {
    if (a) a.copy_from(b);
  };
  copy(to.images, from.images), copy(to.crop, from.crop), copy(to.labels, from.labels);
  copy(to.soft_labels, from.soft_labels), copy(to.class_mask, from.class_mask);
}

/// Memory of its own for each input, not the batch's or the pool's.
StepInputs own(const StepInputs& from) {
  const auto clone = [](const Tensor& t) { return t ? t.clone() : Tensor{}; };
  return {from.count,         from.global_count,       from.shared,           clone(from.images), clone(from.crop),
          clone(from.labels), clone(from.soft_labels), clone(from.class_mask)};
}

}  // namespace

StepInputs inputs_of(const Batch& batch, const Tensor& class_mask, std::int64_t classes, Device device) {
  StepInputs in;
  const std::int64_t n = in.count = batch.count;
  in.global_count = batch.global_count, in.shared = batch.ranks > 1;
  in.images = borrow(batch.images.data(), {n, batch.channels, batch.size, batch.size}, device);
  if (!batch.crop.empty()) in.crop = borrow(batch.crop.data(), {n, 3}, device);
  if (batch.soft_labels.empty())
    in.labels = borrow(batch.labels.data(), {n}, device);
  else
    in.soft_labels = Tensor::from(std::span(batch.soft_labels), {n, classes}, device.statistic(), device);
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
  if (recorded) {
    r.recorded = true;
    return;
  }
  record_ = false;
  std::cerr << "evergrad: the training step is not recorded but launched kernel by kernel: " << why << '\n';
}

const StepOutputs& StepGraph::run(const Batch& batch, const Tensor& class_mask, std::int64_t classes,
                                  const Body& body) {
  const StepInputs in = inputs_of(batch, class_mask, classes, device_);
  const std::string key = signature(in);
  const bool recordable = record_ && !device_.is_host();
  if (!recordable || (!by_signature_.contains(key) && by_signature_.size() >= kMostRecordings)) {
    plain_ = {};
    body(in, plain_);
    return plain_;
  }
  Recorded& r = by_signature_[key];
  if (++r.seen == 1)
    r.inputs = own(in);
  else
    copy_into(r.inputs, in);
  if (r.seen == 2) record(r, body);
  if (r.recorded) {
    if (dog_) dog_->replayed(r.collectives);
    runtime(device_).replay(r.graph, {});
    ++replays_;
  } else {
    r.outputs = {};
    body(r.inputs, r.outputs);
  }
  return r.outputs;
}

}  // namespace eg
