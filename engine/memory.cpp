// engine/memory.cpp - the step-scoped activation pool.
#include "engine/memory.h"

#include <algorithm>
#include <utility>

#include "engine/poison.h"

namespace eg {
namespace {

// Size classes: multiples of an eighth of the power of two below, so at most 12.5 % of a block is unused, and slightly
// different batches (the last, partial one) reuse the same blocks.
std::size_t size_class(std::size_t bytes) {
  std::size_t top = 4096;
  if (bytes <= top) return top;
  while (top * 2 <= bytes) top *= 2;
  const std::size_t step = top / 8;
  return (bytes + step - 1) / step * step;
}

}  // namespace

std::shared_ptr<ActivationPool> ActivationPool::make(Device device) {
  return std::shared_ptr<ActivationPool>(new ActivationPool(device));
}

// A block that is free is poisoned, so that AddressSanitizer sees whoever goes on using a dead activation. In stream
// order, because the work that used it may not have run yet; inside a recording that makes it part of every replay.
void ActivationPool::mark(void* block, std::size_t bytes, bool is_free) {
  if (!sanitizer_watches() || device_.type == DeviceType::cuda) return;  // a GPU's memory has no shadow
  runtime(device_).call_host({}, is_free ? "a block goes back to the pool" : "a block of the pool",
                             [=] { set_poison(block, bytes, is_free); });
}

ActivationPool::~ActivationPool() {
  for (void* block : all_) runtime(device_).release(block);
}

Tensor ActivationPool::empty(const Shape& shape, DType dtype) {
  const std::size_t bytes = std::size_t(shape.size()) * size_of(dtype);
  const std::size_t block_bytes = size_class(bytes);
  void* block = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (fault_) std::rethrow_exception(std::exchange(fault_, nullptr));
    auto& blocks = free_[block_bytes];
    if (!blocks.empty()) block = blocks.back(), blocks.pop_back();
  }
  if (block) {
    mark(block, block_bytes, false);
  } else {
    block = runtime(device_).allocate(block_bytes);
    const std::lock_guard lock(mutex_);
    all_.push_back(block);
    reserved_ += block_bytes;
    ++allocations_;
  }
  {
    const std::lock_guard lock(mutex_);
    live_ += block_bytes;
    peak_ = std::max(peak_, live_);
  }
  // The storage keeps the pool alive: a tensor may outlive the pool's owner.
  auto storage = std::make_shared<Storage>(
      device_, block, bytes, [self = shared_from_this(), block, block_bytes] { self->give_back(block, block_bytes); });
  return Tensor::on(std::move(storage), 0, shape, dtype);
}

void ActivationPool::give_back(void* block, std::size_t bytes) {
  std::exception_ptr fault;
  try {
    mark(block, bytes, true);
  } catch (...) {
    // An earlier fault of the stream, which the call brought to light. The last handle dies in a destructor, which must
    // not throw; the next request does.
    fault = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  if (fault) fault_ = fault;
  free_[bytes].push_back(block);
  live_ -= bytes;
}

ActivationPool& pool(Device device) {
  static std::mutex mutex;
  static std::vector<std::shared_ptr<ActivationPool>> pools;
  const std::lock_guard lock(mutex);
  for (const auto& p : pools)
    if (p->device() == device) return *p;
  pools.push_back(ActivationPool::make(device));
  return *pools.back();
}

}  // namespace eg
