// tests/kernels/device_cuda.cpp - this program tests cuda:0, each case twice: the bits must be equal. Without a GPU it
// is skipped (exit code 77). EVERGRAD_TEST_KERNELS=library|auto: where there is a choice, as --kernels makes it; the name of an
// implementation (warpgroup-256): that one wherever it can, and where it never can the program is skipped too.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cuda/device/runtime.h"
#include "cuda/kernels/kernels.h"
#include "cuda/table.h"
#include "engine/kernel_choices.h"
#include "tests/kernels/conform.h"

namespace eg::test {

namespace {

[[noreturn]] void skip(const std::string& why) {
  std::printf("SKIPPED: %s\n", why.c_str());
  std::fflush(stdout);
  std::_Exit(77);
}

/// Everything that has an implementation of that name is computed by it: a clock that finds it the fastest.
void take_only(KernelChoices& choices, const std::string& name) {
  const std::vector<std::string> names = choices.names();
  if (std::find(names.begin(), names.end(), name) == names.end()) skip("this build has no kernel " + name);
  if (name.starts_with("warpgroup") && !cuda_backend::warpgroup_products())
    skip("this GPU, or the code that was built, has no warpgroup products");
  choices.describe(names, choices.identity(),
                   [name](const std::string&, const std::string& tried, Stream, const std::function<void()>&) {
                     return tried == name ? 1.0 : 2.0;
                   });
  KernelChoices::Start start;
  start.mode = KernelMode::automatic;
  // Ours all compute the same and repeat it; what a library's does not may be left out, and is said.
  start.warn = [name](const std::string& text) {
    CHECK_MESSAGE(text.find("'" + name + "' is not used") == std::string::npos, text);
  };
  choices.start(std::move(start));
}

}  // namespace

const DeviceUnderTest& device_under_test() {
  static const DeviceUnderTest cuda = [] {
    if (cuda_backend::device_count() == 0) skip("no GPU: " + cuda_backend::why_no_device());
    DeviceUnderTest d{{DeviceType::cuda, 0}, 2};
    register_device(d.device, &cuda_backend::kernel_table(), &cuda_backend::device_runtime(0));
    cuda_backend::describe_kernel_choices(0);
    KernelChoices& choices = kernel_choices(d.device);
    const char* const given = std::getenv("EVERGRAD_TEST_KERNELS");
    const std::string mode = given && *given ? given : "hand";
    // An implementation that is left out is said on standard error; what is taken must agree and repeat, whoever wrote it.
    if (mode == "hand" || mode == "library" || mode == "auto")
      choices.start({.mode = parse_kernel_mode(mode)});
    else
      take_only(choices, mode);
    return d;
  }();
  return cuda;
}

}  // namespace eg::test
