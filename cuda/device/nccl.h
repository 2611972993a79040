// cuda/device/nccl.h - NCCL behind engine/collectives/nccl.h. NOT RUN ON A GPU YET.
#pragma once
#include <memory>

#include "engine/collectives/nccl.h"

namespace eg::cuda_backend {

NcclBackend nccl_backend();

}  // namespace eg::cuda_backend
