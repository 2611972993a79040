// cuda/emulated/runtime.h - the runtime object of the emulated device.
#pragma once
#include "engine/device.h"

namespace eg::emulated {
DeviceRuntime& emulated_runtime();
}  // namespace eg::emulated
