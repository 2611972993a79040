// cuda/device/register.cpp - the GPUs of this machine in the engine's registries.
#include "cuda/device/runtime.h"
#include "cuda/gpus.h"
#include "cuda/table.h"
#include "engine/collectives/handshake.h"
#include "engine/error.h"
#if defined(EVERGRAD_HAVE_NCCL)
#include "cuda/device/nccl.h"
#endif

namespace eg {

void register_gpus() {
  // Nothing here makes a context on a GPU: whoever computes on another one, or on none, leaves it alone. A GPU that does not even
  // say what it is is left out, and the others serve.
  for (int i = 0; i < cuda_backend::device_count(); ++i) {
    const Device device{DeviceType::cuda, i};
    try {
      cuda_backend::describe_kernel_choices(i);
      set_bus_id(device, cuda_backend::bus_id(i));
    } catch (const Error& e) {
      register_absence(DeviceType::cuda, cat(device, " does not answer: ", e.what()));
      continue;
    }
    register_device(device, &cuda_backend::kernel_table(), &cuda_backend::device_runtime(i),
                    &cuda_backend::device_ladders());
  }
  if (const std::string why = cuda_backend::why_no_device(); !why.empty())
    register_absence(DeviceType::cuda, cat("in this build, but no GPU can be used here: ", why));
#if defined(EVERGRAD_HAVE_NCCL)
  register_nccl(cuda_backend::nccl_backend());
#endif
}

}  // namespace eg
