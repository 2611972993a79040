// tests/kernels/device_cpu.cpp - this program tests the cpu.
#include "tests/kernels/conform.h"

namespace eg::test {
const DeviceUnderTest& device_under_test() {
  static const DeviceUnderTest cpu{kCpu};
  return cpu;
}
}  // namespace eg::test
