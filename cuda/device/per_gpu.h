// cuda/device/per_gpu.h - what a library keeps for each GPU: its handle, and the plans made with it.
#pragma once
#include <map>
#include <mutex>

#include "cuda/choose.h"

namespace eg::cuda_backend {

/// The T of the current GPU, made when first asked for. Never destroyed: at the end of the process the driver may be gone before.
template <class T>
T& per_gpu() {
  static std::mutex mutex;
  static std::map<int, T*> by_device;
  const std::lock_guard lock(mutex);
  T*& object = by_device[current_device().index];
  if (!object) object = new T;
  return *object;
}

}  // namespace eg::cuda_backend
