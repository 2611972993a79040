// tests/words/device_cuda.cpp - these tests run on cuda:0; without a GPU the program is skipped (exit code 77).
#include <cstdio>
#include <cstdlib>

#include "cuda/device/runtime.h"
#include "tests/words/arrays.h"

namespace eg::cuda_backend {

DeviceRuntime& device() {
  static DeviceRuntime& cuda = []() -> DeviceRuntime& {
    if (device_count() == 0) {
      std::printf("SKIPPED: no GPU: %s\n", why_no_device().c_str());
      std::fflush(stdout);
      std::_Exit(77);
    }
    return device_runtime(0);
  }();
  return cuda;
}

}  // namespace eg::cuda_backend
