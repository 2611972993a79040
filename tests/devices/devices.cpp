// tests/devices/devices.cpp - see devices.h.
#include "tests/devices/devices.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "cuda/register.h"

namespace eg::test {
namespace {

std::vector<Device> find_devices() {
  register_cuda_devices();
  const std::vector<Device> all = devices();
  std::vector<Device> found;
  const char* const wanted = std::getenv("EVERGRAD_TEST_DEVICE");
  if (!wanted || !*wanted) {
    for (const Device d : all)
      if (!(d == kCpu) && d.type != DeviceType::cuda) found.push_back(d);
    return found;
  }
  const Device device = parse_device(wanted);  // throws on what is no device's name
  std::string names;
  for (const Device d : all) {
    if (d == device) return {d};
    names += (names.empty() ? "" : ", ") + to_string(d);
  }
  std::printf("SKIPPED: no %s here; there are %s\n", wanted, names.c_str());
  std::fflush(stdout);
  std::_Exit(77);
}

}  // namespace

const std::vector<Device>& devices_under_test() {
  static const std::vector<Device> all = find_devices();
  return all;
}

std::vector<std::string> kernel_devices() {
  std::vector<std::string> names;
  for (const Device d : devices_under_test())
    if (d.type == DeviceType::emulated || d.type == DeviceType::cuda) names.push_back(to_string(d));
  return names;
}

bool has_emulated() {
  const std::vector<Device>& all = devices_under_test();
  return std::any_of(all.begin(), all.end(), [](const Device& d) { return d.type == DeviceType::emulated; });
}
}  // namespace eg::test
