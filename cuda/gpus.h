// cuda/gpus.h - the GPUs' part of register_cuda_devices(): device/register.cpp where the CUDA toolkit is, else absent.cpp.
#pragma once

namespace eg {
/// Adds `cuda:N` for every GPU to the registry of engine/device.h, or says there why there is none.
void register_gpus();
}  // namespace eg
