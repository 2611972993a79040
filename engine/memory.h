// engine/memory.h - where a step's memory comes from.
//
// ActivationPool: blocks given back are handed out again to the next request of the same size class, in the same order
// every step, so that addresses repeat from step to step and no allocation happens after the first. In a program with
// AddressSanitizer a free block is poisoned (host and emulated devices).
#pragma once
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace eg {

class ActivationPool : public std::enable_shared_from_this<ActivationPool> {
 public:
  static std::shared_ptr<ActivationPool> make(Device device);
  ~ActivationPool();
  /// A tensor whose block returns here when its last handle dies. Contents are whatever was there before.
  Tensor empty(const Shape& shape, DType dtype);
  Device device() const { return device_; }
  std::size_t bytes_live() const { return live_; }
  std::size_t bytes_peak() const { return peak_; }
  std::size_t bytes_reserved() const { return reserved_; }
  std::int64_t allocations() const { return allocations_; }  // calls into the runtime; flat after the first step
  void reset_peak() { peak_ = live_; }

 private:
  explicit ActivationPool(Device device) : device_(device) {}
  void give_back(void* block, std::size_t bytes);
  void mark(void* block, std::size_t bytes, bool is_free);
  Device device_;
  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;  // size class -> blocks, last in first out
  std::vector<void*> all_;
  std::size_t live_ = 0, peak_ = 0, reserved_ = 0;
  std::int64_t allocations_ = 0;
  std::exception_ptr fault_;  // found while a block was given back
};

/// The process-wide pool of a device: what ops draw their results from.
ActivationPool& pool(Device device);

}  // namespace eg
