// cuda/register.cpp - see register.h.
#include "cuda/register.h"

#include "cuda/gpus.h"
#include "engine/device.h"
#if defined(EVERGRAD_HAVE_EMULATED)
#include "cuda/emulated/runtime.h"
#include "cuda/table.h"
#endif

namespace eg {

void register_cuda_devices() {
#if defined(EVERGRAD_HAVE_EMULATED)
  register_device({DeviceType::emulated, 0}, &emulated_backend::kernel_table(), &emulated::emulated_runtime(),
                  &emulated_backend::device_ladders());
  emulated_backend::describe_kernel_choices();
#else
  register_absence(DeviceType::emulated, "not in this build; configure with -DEVERGRAD_EMULATED=ON");
#endif
  register_gpus();
}

}  // namespace eg
