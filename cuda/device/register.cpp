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
  for (int i = 0; i < cuda_backend::device_count(); ++i) {
    register_device({DeviceType::cuda, i}, &cuda_backend::kernel_table(), &cuda_backend::device_runtime(i),
                    &cuda_backend::device_ladders());
    cuda_backend::describe_kernel_choices(i);
    set_bus_id({DeviceType::cuda, i}, cuda_backend::bus_id(i));
  }
  if (const std::string why = cuda_backend::why_no_device(); !why.empty())
    register_absence(DeviceType::cuda, cat("in this build, but no GPU can be used here: ", why));
#if defined(EVERGRAD_HAVE_NCCL)
  register_nccl(cuda_backend::nccl_backend());
#endif
}

}  // namespace eg
