// cuda/register.cpp - see register.h.
#include "cuda/register.h"

#include "cuda/table.h"
#if defined(EVERGRAD_HAVE_EMULATED)
#include "cuda/emulated/runtime.h"
#endif
#if defined(EVERGRAD_HAVE_CUDA)
#include "cuda/device/runtime.h"
#include "engine/collectives/handshake.h"
#endif
#if defined(EVERGRAD_HAVE_NCCL)
#include "cuda/device/nccl.h"
#endif

namespace eg {

void register_cuda_devices() {
#if defined(EVERGRAD_HAVE_EMULATED)
  register_device({DeviceType::emulated, 0}, &emulated_backend::kernel_table(), &emulated::emulated_runtime(),
                  &emulated_backend::device_ladders());
  emulated_backend::describe_kernel_choices();
#endif
#if defined(EVERGRAD_HAVE_CUDA)
  for (int i = 0; i < cuda_backend::device_count(); ++i) {
    register_device({DeviceType::cuda, i}, &cuda_backend::kernel_table(), &cuda_backend::device_runtime(i),
                    &cuda_backend::device_ladders());
    cuda_backend::describe_kernel_choices(i);
    set_bus_id({DeviceType::cuda, i}, cuda_backend::bus_id(i));
  }
#endif
#if defined(EVERGRAD_HAVE_NCCL)
  register_nccl(cuda_backend::nccl_backend());
#endif
}

}  // namespace eg
