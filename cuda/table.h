// cuda/table.h - the kernel tables and ladders of the two backends.
#pragma once
#include "engine/ladder.h"

namespace eg {
namespace emulated_backend {
const KernelTable& kernel_table();
const Ladders& device_ladders();
}  // namespace emulated_backend
namespace cuda_backend {
const KernelTable& kernel_table();
const Ladders& device_ladders();
}  // namespace cuda_backend
}  // namespace eg
