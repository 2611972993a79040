// cuda/absent.cpp - what a build without the CUDA toolkit has in place of device/.
#include "cuda/gpus.h"
#include "engine/device.h"

namespace eg {

void register_gpus() {
  register_absence(DeviceType::cuda,
                   "not in this build; configure with -DEVERGRAD_CUDA=ON, which needs the CUDA toolkit");
}

}  // namespace eg
