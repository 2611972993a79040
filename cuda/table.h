// cuda/table.h - the kernel tables of the two backends.
#pragma once
#include "engine/kernels.h"

namespace eg {
namespace emulated_backend {
const KernelTable& kernel_table();
}
namespace cuda_backend {
const KernelTable& kernel_table();
}
}  // namespace eg
