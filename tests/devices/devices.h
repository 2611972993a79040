// tests/devices/devices.h - the devices that this test program compares with the cpu.
#pragma once
#include <string>
#include <vector>

#include "engine/device.h"

namespace eg::test {
/// The reference and the emulated device; or, with EVERGRAD_TEST_DEVICE=cuda:0, that one alone. Where it does not exist, the
/// program ends here as skipped (exit code 77).
const std::vector<Device>& devices_under_test();
/// Those of them that run CUDA kernels, as --device names them.
std::vector<std::string> kernel_devices();
bool has_emulated();
}  // namespace eg::test
