// cuda/register.h - all that the rest of the project knows of cuda/.
#pragma once

namespace eg {
/// Adds the devices of this build to the registry of engine/device.h: `emulated`, and `cuda:N` for every GPU. Cheap to
/// call twice.
void register_cuda_devices();
}  // namespace eg
