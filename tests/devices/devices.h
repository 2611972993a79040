// tests/devices/devices.h - the devices that this test program compares with the cpu.
#pragma once
#include <vector>

#include "engine/device.h"

namespace eg::test {
/// The reference, the emulated device, and cuda:0 where there is one.
const std::vector<Device>& devices_under_test();
}  // namespace eg::test
