// cuda/emulated/runtime.h - the runtime object of the emulated device.
#pragma once
#include <cstdint>

#include "engine/device.h"

namespace eg::emulated {
DeviceRuntime& emulated_runtime();
/// Products of 16 x 16 by 16 x 8 numbers that warps have formed in this process (mma_16816): 4096 operations each.
std::uint64_t tensor_core_products() noexcept;
}  // namespace eg::emulated
