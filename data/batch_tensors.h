// data/batch_tensors.h - what the loader gives, as the tensors that a forward pass takes.
#pragma once
#include "data/augment.h"
#include "data/loader.h"
#include "engine/tensor.h"

namespace eg {

/// Copies, so that the batch may be replaced by the next one.
struct BatchTensors {
  Tensor images;  // u8 [B, channels, S, S]
  Tensor labels;  // i32 [B]
  Tensor crop;    // i32 [B, 3] for patchify, or empty
};
inline BatchTensors tensors_of(const Batch& b, Device device = kCpu) {
  BatchTensors t;
  t.images = Tensor::from(std::span(b.images.data(), b.images.size()), {b.count, b.channels, b.size, b.size}, device);
  t.labels = Tensor::from(std::span<const std::int32_t>(b.labels), {b.count}, device);
  if (!b.crop.empty()) t.crop = Tensor::from(std::span<const std::int32_t>(b.crop), {b.count, 3}, device);
  return t;
}

/// Mean or standard deviation of the channels as patchify takes them, in the device's type of statistics.
inline Tensor channel_tensor(const std::vector<double>& of_channels, Device device = kCpu) {
  return Tensor::from(of_channels, {std::int64_t(of_channels.size())}, device.statistic(), device);
}

}  // namespace eg
