// tests/kernels/device_emulated.cpp - this program tests the emulated CUDA device: every case in round-robin order and
// in a random one.
#include "cuda/emulated/runtime.h"
#include "cuda/emulated/streams.h"
#include "cuda/table.h"
#include "engine/kernel_choices.h"
#include "tests/kernels/conform.h"

namespace eg::test {

const DeviceUnderTest& device_under_test() {
  static const DeviceUnderTest emulated = [] {
    DeviceUnderTest d{{DeviceType::emulated, 0}};
    register_device(d.device, &emulated_backend::kernel_table(), &emulated::emulated_runtime());
    // EVERGRAD_EMULATED=fastest=NAME: everything that has an implementation of that name is computed by it.
    emulated_backend::describe_kernel_choices();
    if (kernel_choices(d.device).can_measure()) {
      KernelChoices::Start start;
      start.mode = KernelMode::automatic;
      start.warn = [](const std::string& text) { FAIL_CHECK(text); };  // all of ours compute the same, and repeat it
      kernel_choices(d.device).start(std::move(start));
    }
    d.schedules = 2;
#if defined(EVERGRAD_VARIANT_RACE)
    // It looks at orders that did not happen, too; a second one shows bits that depend on the order, as small cases do.
    d.most_repeated = 3000;
#endif
    d.use_schedule = [](int schedule) {
      static std::uint64_t seed = 0;
      emulated::settings().schedule = {schedule != 0, ++seed};
      emulated::settings().lazy = schedule != 0;
    };
    return d;
  }();
  return emulated;
}

}  // namespace eg::test
