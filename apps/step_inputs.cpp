// apps/step_inputs.cpp - see step_inputs.h.
#include "apps/step_inputs.h"

#include <algorithm>
#include <span>

#include "engine/error.h"
#include "engine/memory.h"

namespace eg {
namespace {

/// The batch's own memory as a tensor of a host device; soft labels in the device's type, which may be another one.
Tensor borrowed(const HeldInput& h, Device device) {
  if (h.dtype == DType::f32)
    return Tensor::from(std::span(static_cast<const float*>(h.data), std::size_t(h.shape.size())), h.shape,
                        device.statistic(), device);
  return Tensor::on(std::make_shared<Storage>(device, const_cast<void*>(h.data), h.bytes(), [] {}), 0, h.shape,
                    h.dtype);
}

}  // namespace

std::vector<HeldInput> held_by(const Batch& b, std::int64_t classes) {
  std::vector<HeldInput> all{{&StepInputs::images, b.images.data(), {b.count, b.channels, b.size, b.size}, DType::u8}};
  if (!b.crop.empty()) all.push_back({&StepInputs::crop, b.crop.data(), {b.count, 3}, DType::i32});
  if (b.soft_labels.empty())
    all.push_back({&StepInputs::labels, b.labels.data(), {b.count}, DType::i32});
  else
    all.push_back({&StepInputs::soft_labels, b.soft_labels.data(), {b.count, classes}, DType::f32});
  return all;
}

StepInputs counts_of(const Batch& batch) {
  StepInputs in;
  in.count = batch.count, in.global_count = batch.global_count, in.shared = batch.ranks > 1;
  return in;
}

void upload(const StepInputs& to, const std::vector<HeldInput>& held, Device device) {
  for (const HeldInput& h : held) runtime(device).copy_from_host((to.*h.where).data(), h.data, h.bytes(), {});
}

StepInputs inputs_of(const Batch& batch, const Tensor& class_mask, std::int64_t classes, Device device,
                     UploadAhead* ahead) {
  StepInputs in = counts_of(batch);
  const std::vector<HeldInput> held = held_by(batch, classes);
  for (const HeldInput& h : held)
    in.*h.where = device.is_host() ? borrowed(h, device) : pool(device).empty(h.shape, h.dtype);
  if (!device.is_host() && !(ahead && ahead->take(batch, held, in))) upload(in, held, device);
  in.class_mask = class_mask;
  return in;
}

UploadAhead::~UploadAhead() {
  if (!stream_.handle) return;
  DeviceRuntime& r = runtime(device_);
  r.destroy_event(copied_), r.destroy_event(taken_), r.destroy_stream(stream_);
}

void UploadAhead::reserve(const Batch& batch, std::int64_t classes) {
  if (device_.is_host() || batch.serial == 0 || gave_up_) return;
  DeviceRuntime& r = runtime(device_);
  const std::vector<HeldInput> held = held_by(batch, classes);
  if (!stream_.handle) stream_ = r.create_stream(), copied_ = r.create_event(), taken_ = r.create_event();
  memory_.resize(std::max(memory_.size(), held.size()));
  for (std::size_t i = 0; i < held.size(); ++i) {
    if (memory_[i] && memory_[i].bytes() >= held[i].bytes()) continue;
    serial_ = 0;
    if (memory_[i]) r.synchronize(stream_), r.synchronize({});  // a copy may still be on its way to or from it
    try {
      memory_[i] = Tensor::empty({std::int64_t(held[i].bytes())}, DType::u8, device_);
    } catch (const Error& e) {
      if (e.kind != Kind::memory) throw;
      gave_up_ = true;  // steps do without
      return memory_.clear();
    }
  }
}

void UploadAhead::begin(const Batch& next, std::int64_t classes) {
  if (memory_.empty() || next.serial == 0) return;
  const std::vector<HeldInput> held = held_by(next, classes);
  if (held.size() > memory_.size()) return;
  for (std::size_t i = 0; i < held.size(); ++i)
    if (memory_[i].bytes() < held[i].bytes()) return;
  serial_ = 0;  // until all of it is there
  DeviceRuntime& r = runtime(device_);
  if (was_taken_) r.wait(stream_, taken_);
  for (std::size_t i = 0; i < held.size(); ++i)
    r.copy_from_host(memory_[i].data(), held[i].data, held[i].bytes(), stream_);
  r.record(copied_, stream_);
  serial_ = next.serial;
}

bool UploadAhead::take(const Batch& batch, const std::vector<HeldInput>& held, const StepInputs& to) {
  if (batch.serial == 0 || batch.serial != serial_) return false;
  DeviceRuntime& r = runtime(device_);
  r.wait({}, copied_);
  for (std::size_t i = 0; i < held.size(); ++i)
    r.copy_within((to.*held[i].where).data(), memory_[i].data(), held[i].bytes(), {});
  r.record(taken_, {});
  serial_ = 0, was_taken_ = true, ++taken_count_;
  return true;
}

}  // namespace eg
