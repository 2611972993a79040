// data/loader.h - batches of one task, prepared in the background in an order that depends on nothing but the seed.
//
// What a batch holds is a pure function of (seed, task, epoch, batch number): workers only decide when it is ready. The
// loader can therefore start at any batch, which is how a killed run resumes.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "data/augment.h"
#include "data/dataset.h"
#include "data/stream.h"

namespace eg {

/// What a loader prepares, and in which order.
struct LoaderConfig {
  ImageFormat format;
  std::int64_t batch = 64;  // of all ranks together
  std::int64_t epochs = 0;  // after so many epochs next() returns null for good; 0: endless
  bool shuffle = true;      // order of epoch e: Fisher-Yates keyed by (seed, task, e)
  std::uint64_t seed = 1;
  std::uint32_t task = 0;
  AugmentConfig augment;           // leave at its default for evaluation
  std::int64_t soft_classes = 0;   // row length of soft labels; needed with mixup or CutMix
  std::int64_t shift_samples = 0;  // samples over which a gradual transform moves; 0: it stands at its end
  int workers = 1;                 // background threads; 0: next() does the work itself
  int prefetch = 4;                // batches prepared ahead
  int rank = 0, ranks = 1;         // rank r takes the r-th part of every batch
};

/// Memory aligned for vector loads; grows, never shrinks.
struct AlignedBytes {
  std::uint8_t* data() { return data_; }
  const std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }
  void resize(std::size_t bytes);

 private:
  std::unique_ptr<std::uint8_t[]> storage_;
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0, room_ = 0;
};

/// Host memory owned by the loader, valid until the next call of next() or seek(). 64-byte aligned images.
struct Batch {
  std::int64_t count = 0;         // images of this rank; 0 only when the last partial batch is smaller than `ranks`
  std::int64_t global_count = 0;  // of all ranks
  int ranks = 1;                  // that share it; 1: every rank that loads it has all of it
  int channels = 0, size = 0;
  std::int64_t epoch = 0, index = 0;    // batch number within the epoch
  std::uint64_t serial = 0;             // of this filling, unique in the process; 0: no loader filled it
  std::uint64_t first_sample = 0;       // global sample number of image 0: epoch x samples + position; images follow on
  AlignedBytes images;                  // u8 [count, channels, size, size]
  std::vector<std::int32_t> labels;     // [count]; with soft labels: the label of the larger share
  std::vector<float> soft_labels;       // [count, soft_classes], or empty
  std::vector<std::int32_t> crop;       // [count, 3] {top, left, flip} for PatchifyFwd, or empty
  std::vector<std::int64_t> positions;  // [count]: index into the SampleSet
};

/// Prepares the batches of one task in background threads. next() is for one thread.
class Loader {
 public:
  /// Throws Error{usage} for an empty SampleSet or values out of range. Starts at (epoch 0, batch 0).
  Loader(std::shared_ptr<const Dataset> data, SampleSet samples, const Transform& transform,
         const LoaderConfig& config);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The next batch; null once at every epoch's end (then the next epoch begins). What a worker threw is thrown here;
  /// the loader is then at its end until seek().
  const Batch* next();
  /// What the call of next() after this batch will return, where a worker has it ready; null: not yet, or there is none. Valid as
  /// long as that will be.
  const Batch* ahead();
  /// Continue with this batch. batch may equal batches_per_epoch(): then next() returns null first.
  void seek(std::int64_t epoch, std::int64_t batch);

  std::int64_t batches_per_epoch() const;
  std::int64_t samples() const;
  const LoaderConfig& config() const;
  /// Seconds that next() spent waiting for (or, without workers, preparing) data since construction.
  double wait_seconds() const;
  /// Host memory held by the batches now.
  std::int64_t bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace eg
