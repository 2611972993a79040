// apps/step_inputs.h - what a training step reads, on its way from the loader's memory to the device.
#pragma once
#include <cstdint>
#include <vector>

#include "data/loader.h"
#include "engine/tensor.h"

namespace eg {

/// What a step reads from its batch, on the trainer's device. All but images may be absent.
struct StepInputs {
  std::int64_t count = 0;         // images of this rank
  std::int64_t global_count = 0;  // of all ranks: what the mean loss is divided by
  bool shared = false;            // the batch is spread over ranks: gradients and sums are all of theirs
  Tensor images;                  // u8 [B, C, S, S]
  Tensor crop;                    // i32 [B, 3]
  Tensor labels;                  // i32 [B]
  Tensor soft_labels;             // stat [B, K]; instead of labels
  Tensor class_mask;              // u8 [K]
};

/// One input of a step as the batch holds it.
struct HeldInput {
  Tensor StepInputs::*where;
  const void* data;
  Shape shape;
  DType dtype;
  std::size_t bytes() const { return std::size_t(shape.size()) * size_of(dtype); }
};
std::vector<HeldInput> held_by(const Batch& batch, std::int64_t classes);

/// Copies a batch to the device while the step before it runs there: on a stream of its own, into memory of its own, from where
/// take() moves it into place.
class UploadAhead {
 public:
  explicit UploadAhead(Device device) : device_(device) {}
  ~UploadAhead();
  UploadAhead(const UploadAhead&) = delete;
  UploadAhead& operator=(const UploadAhead&) = delete;

  /// Memory for batches like this one. Does nothing on a host device, which reads a batch where it is, for a batch without a
  /// serial number, and where the device has no room: then nothing is copied ahead any more.
  void reserve(const Batch& batch, std::int64_t classes);
  /// Where the memory holds it. The batch may be refilled as soon as this returns.
  void begin(const Batch& next, std::int64_t classes);
  /// Puts the batch into `to`, in front of what is enqueued from now on. False: it is not the one that begin() was given last.
  bool take(const Batch& batch, const std::vector<HeldInput>& held, const StepInputs& to);
  std::int64_t taken() const { return taken_count_; }

 private:
  Device device_;
  Stream stream_;
  Event copied_, taken_;
  bool was_taken_ = false, gave_up_ = false;
  std::uint64_t serial_ = 0;  // of the batch in memory_; 0: none
  std::vector<Tensor> memory_;
  std::int64_t taken_count_ = 0;
};

/// The counts alone.
StepInputs counts_of(const Batch& batch);
/// From the batch straight into place, without waiting: the copies are in front of the step on its stream, and the
/// batch may be refilled as soon as this returns.
void upload(const StepInputs& to, const std::vector<HeldInput>& held, Device device);
/// The batch's memory as it is where the device can read it (valid while the batch is), else copies in the device's
/// pool, which are on their way when this returns; from `ahead` where the batch is there.
StepInputs inputs_of(const Batch& batch, const Tensor& class_mask, std::int64_t classes, Device device,
                     UploadAhead* ahead = nullptr);

}  // namespace eg
