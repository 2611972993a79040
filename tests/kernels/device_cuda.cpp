// tests/kernels/device_cuda.cpp - this program tests cuda:0, each case twice: the bits must be equal. Without a GPU it
// is skipped (exit code 77). EVERGRAD_TEST_KERNELS=library|auto: where there is a choice, as --kernels makes it.
#include <cstdio>
#include <cstdlib>

#include "cuda/device/runtime.h"
#include "cuda/table.h"
#include "engine/kernel_choices.h"
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
    const char* const mode = std::getenv("EVERGRAD_TEST_KERNELS");
    cuda_backend::describe_kernel_choices(0);
    // An implementation that is left out is said on standard error; what is taken must agree and repeat, whoever wrote it.
    kernel_choices(d.device).start({.mode = parse_kernel_mode(mode && *mode ? mode : "hand")});
    return d;
  }();
  return cuda;
}

}  // namespace eg::test
