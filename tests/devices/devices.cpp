// tests/devices/devices.cpp - see devices.h.
#include "tests/devices/devices.h"

#include "cuda/register.h"

namespace eg::test {
const std::vector<Device>& devices_under_test() {
  static const std::vector<Device> all = [] {
    register_cuda_devices();
    std::vector<Device> found;
    for (const Device d : devices())
      if (!(d == kCpu) && d.index == 0) found.push_back(d);
    return found;
  }();
  return all;
}
}  // namespace eg::test
