// tests/kernels/device_cuda.cpp - this program tests cuda:0, each case twice: the bits must be equal. Without a GPU it
// is skipped (exit code 77).
#include <cstdio>
#include <cstdlib>

#include "cuda/device/runtime.h"
#include "cuda/table.h"
#include "tests/kernels/conform.h"

namespace eg::test {

const DeviceUnderTest& device_under_test() {
  static const DeviceUnderTest cuda = [] {
    if (cuda_backend::device_count() == 0) {
      std::printf("SKIPPED: no GPU: %s\n", cuda_backend::why_no_device().c_str());
      std::fflush(stdout);
      std::_Exit(77);
    }
    DeviceUnderTest d{{DeviceType::cuda, 0}, 2};
    register_device(d.device, &cuda_backend::kernel_table(), &cuda_backend::device_runtime(0));
    return d;
  }();
  return cuda;
}

}  // namespace eg::test
